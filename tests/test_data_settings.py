"""Settings and files that contradict each other are refused in words, not read by half."""

import logging
import shlex

import pytest
from data_helpers import Generative, make_config

from recbole_gr import Recommender
from recbole_gr.config.command_lines import recommend_command
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.serving.recommend import main as recommend

pytestmark = pytest.mark.usefixtures("quiet_argv")
HEAD = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ROWS = [f"u{n % 6}\ti{n * 5 % 14}\t{n % 5 + 1}\t{n}" for n in range(96)]
COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
BY_LABEL = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "labeled"},
            "metrics": ["AUC"], "valid_metric": "AUC"}  # fmt: skip


def write(folder, **files):
    """Atomic files by suffix (`_` for `.`), each a list of lines."""
    (folder / "odd").mkdir(exist_ok=True)
    for suffix, lines in {"inter": [HEAD, *ROWS], **files}.items():
        path = folder / "odd" / f"odd.{suffix.replace('_', '.')}"
        path.write_text("\n".join(lines) + "\n")
    return folder


def read(folder, model=Generative, split=True, **values):
    config = make_config(folder, model, "odd", **{"normalize_all": False, **values})
    dataset = create_dataset(config)
    if split:
        data_preparation(config, dataset)
    return dataset


# Forms


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": 4},
        {"threshold": {"rating": "4"}},
        {"threshold": {"rating": 4, "timestamp": 1}},
        {"load_col": {"inter": None}},
        {"load_col": {"inter": "rating"}},
        {"unload_col": ["rating"]},
        {"unload_col": {"inter": "rating"}},
        {"unused_col": ["rating"]},
        {"unused_col": {"foo": ["rating"]}},
        {"seq_len": 3},
        {"seq_len": {"title": 0}},
        {"seq_len": {"title": -2}},
        {"seq_len": {"title": 2.0}},
        {"alias_of_item_id": "item_id_list"},
        {"preload_weight": ["iid"]},
        {"discretization": ["rating"]},
        {"discretization": {"rating": "ED"}},
        {"discretization": {"rating": {"method": "ED", "bucket": "5"}}},
        {"numerical_features": "rating"},
        {"filter_inter_by_user_or_item": "perhaps"},
        {"filter_inter_by_user_or_item": 1},
        {"field_separator": [","]},
        {"encoding": [8]},
        {"LIST_SUFFIX": ""},
        {"selected_features": []},
    ],
)
def test_settings_of_another_form_are_refused(values, tmp_path):
    (key,) = values
    with pytest.raises(ConfigError, match=rf"{key}: .* must be ") as error:
        read(write(tmp_path), split=False, **values)
    assert repr(values[key]) in str(error.value)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"split": {}},
        {"split": {"LS": "valid_and_test", "RS": [0.8, 0.1, 0.1]}},
        {"split": {"LS": "both"}},
        {"split": {"RS": [0.7, 0.1, 0.1, 0.1]}},
        {"split": {"RS": [0, 0, 0]}},
        {"split": {"RS": "0.8"}},
        {"split": {"LS": "valid_and_test"}, "mode": "xx"},
        {"split": {"LS": "valid_and_test"}, "mode": {"valid": "full", "test": "uni"}},
    ],
)
def test_splits_and_modes_that_mean_nothing_are_refused(evaluation, tmp_path):
    from recbole_gr.data.forms import check_forms

    with pytest.raises(ConfigError, match="eval_args: (split|mode)"):
        check_forms({"eval_args": {"order": "TO", "mode": "full", **evaluation}})


@pytest.mark.parametrize("wanted", [None, []])
def test_a_filter_of_nothing_is_refused(wanted, tmp_path):
    with pytest.raises(ConfigError, match="says nothing"):
        read(write(tmp_path), val_interval={"user_id": wanted})


# Types


def test_a_label_is_made_of_a_number_and_is_zero_or_one(tmp_path):
    tokens = [HEAD.replace("rating:float", "rating:token"), *ROWS]
    for model in ("LR", "BPR"):
        values = {} if model == "BPR" else BY_LABEL
        with pytest.raises(ConfigError, match="threshold: 'rating' is a token column"):
            read(write(tmp_path, inter=tokens), model, threshold={"rating": 4}, **values)
    with pytest.raises(ConfigError, match=r"holds 1, 2, 3, 4, 5; a label is 0 or 1.*threshold"):
        read(write(tmp_path), "LR", LABEL_FIELD="rating", **BY_LABEL)
    with pytest.raises(ConfigError, match="LABEL_FIELD: 'rating' is a token column"):
        read(write(tmp_path, inter=tokens), "LR", LABEL_FIELD="rating", **BY_LABEL)
    with pytest.raises(ConfigError, match="threshold: no column 'stars'"):
        read(write(tmp_path), "LR", threshold={"stars": 4}, **BY_LABEL)
    assert read(write(tmp_path), "LR", threshold={"rating": 4}, **BY_LABEL).label_field == "label"


def test_click_through_models_need_a_label(tmp_path):
    with pytest.raises(ConfigError, match=r"LR learns.*'label' \(LABEL_FIELD\).*--threshold"):
        read(write(tmp_path), "LR", **BY_LABEL)


def test_ids_of_another_type_are_named_with_their_file(tmp_path):
    for suffix, name in (("item", "item_id"), ("user", "user_id")):
        head = f"{name}:float\tage:token"
        folder = write(tmp_path, **{suffix: [head, "1\tx"]})
        columns = {"inter": COLUMNS, suffix: [name, "age"]}
        with pytest.raises(ConfigError, match=rf"odd\.{suffix}: the column .* of type float; ids"):
            read(folder, "BPR", load_col=columns)


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"alias_of_item_id": ["rating"]}, "'rating' is a float column; ids are tokens"),
        ({"alias_of_item_id": ["nope"]}, "no column 'nope' is loaded"),
        ({"unused_col": {"item": ["title"]}}, "nothing of the .item file is loaded"),
        ({"numerical_features": ["user_id"]}, "'user_id' is a token column"),
    ],
)
def test_columns_that_settings_name_must_have_their_type(values, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        read(write(tmp_path), "BPR", **values)


# Files beside each other


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"item": ("item_length:token", "3")}, "'item_length' of 'odd.item' would overwrite"),
        ({"item": ("label:float", "3")}, "'label' of 'odd.item'"),
        ({"item": ("timestamp:float", "3")}, "'timestamp' of 'odd.item'"),
        ({"item": ("rating:float", "3")}, r"'rating' of 'odd.item' .* of \.inter"),
        ({"item": ("user_id:token", "a")}, "'user_id' of 'odd.item'"),
        ({"item": ("item_id_list:token_seq", "a")}, "'item_id_list' of 'odd.item'"),
        ({"item": ("city:token", "a"), "user": ("city:token", "a")}, r"'city' of .* of \.user"),
    ],
)
@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_a_name_never_stands_for_two_columns(model, files, complaint, tmp_path):
    columns, written = {"inter": COLUMNS}, {}
    for suffix, (column, cell) in files.items():
        ids = [f"{suffix[0]}{n}" for n in range(14)]
        written[suffix] = [f"{suffix}_id:token\t{column}", *(f"{name}\t{cell}" for name in ids)]
        columns[suffix] = [f"{suffix}_id", column.split(":")[0]]
    with pytest.raises(ConfigError, match=complaint):
        read(write(tmp_path, **written), model, load_col=columns)
    columns = {"inter": COLUMNS, **{suffix: [f"{suffix}_id"] for suffix in files}}
    read(tmp_path, model, load_col=columns)  # what is not loaded does no harm


def test_interactions_without_a_line_in_a_file_are_counted(tmp_path, caplog):
    items = ["item_id:token\tname:token", *(f"i{n}\tx{n}" for n in range(7))]
    columns = {"inter": COLUMNS, "item": ["item_id", "name"]}
    dataset = read(write(tmp_path, item=items), "BPR", load_col=columns)
    left_out = sum(int(row.split("\t")[1][1:]) >= 7 for row in ROWS)
    assert len(dataset.inter_feat) == 96 - left_out
    assert f"{left_out} of 96 interactions are left out, as their item_id has no" in caplog.text
    items = ["item_id:token\tname:token", *(f"product-{n}\tx" for n in range(7))]
    with pytest.raises(ConfigError, match=r"no item_id of .* in odd\.item.*'product-0' and not"):
        read(write(tmp_path, item=items), "BPR", load_col=columns)


def test_gaps_are_counted_without_padding_and_columns_of_gaps_refused(tmp_path, caplog):
    items = ["item_id:token\tprice:float\tweight:float", *(f"i{n}\t{n}\t1" for n in range(14))]
    columns = {"inter": COLUMNS, "item": ["item_id", "price", "weight"]}
    with caplog.at_level(logging.WARNING):
        read(write(tmp_path, item=items), "BPR", load_col=columns)
    assert "take the mean" not in caplog.text
    items[3] = "i2\t\t1"
    read(write(tmp_path, item=items), "BPR", load_col=columns)
    assert "1 of 14 rows of item in 'odd' have no price; they take the mean" in caplog.text
    items = [items[0], *(f"i{n}\t\t1" for n in range(14))]
    with pytest.raises(ConfigError, match="'price' of 'odd.item' has no value at all"):
        read(write(tmp_path, item=items), "BPR", load_col=columns)


def test_columns_that_load_col_names_and_a_file_lacks_are_said(tmp_path, caplog):
    read(write(tmp_path), "BPR", load_col={"inter": [*COLUMNS, "ratng"]})
    assert "odd.inter has no column ratng" in caplog.text


GRAPH = {"inter": COLUMNS, "kg": ["head_id", "relation_id", "tail_id"],
         "link": ["item_id", "entity_id"]}  # fmt: skip
KG = ["head_id:token\trelation_id:token\ttail_id:token", *(f"m{n}\tr\tm{n + 1}" for n in range(14))]
LINK = ["item_id:token\tentity_id:token", *(f"i{n}\tm{n}" for n in range(14))]


@pytest.mark.parametrize("row, what", [("i0\tm99", "item 'i0'"), ("i99\tm3", "entity 'm3'")])
def test_links_of_a_graph_are_one_to_one(row, what, tmp_path):
    with pytest.raises(ConfigError, match=rf"odd\.link, line 16: the {what} is linked in line"):
        read(write(tmp_path, kg=KG, link=[*LINK, row]), "CKE", load_col=GRAPH)


def test_a_graph_is_read_in_a_period_and_its_files_are_asked_for(tmp_path):
    folder = write(tmp_path, kg=KG, link=LINK)
    rows = [f"u{n % 6}\ti{n // 7}\t1\t{n}" for n in range(96)]  # items appear one after another
    write(tmp_path, inter=[HEAD, *rows])
    dataset = read(folder, "CKE", split=False, load_col=GRAPH,
                   continual_cuts=[0.5, 1.0], continual_period=0)  # fmt: skip
    assert dataset.item_num == 8 and len(dataset.item2entity) == 7
    with pytest.raises(ConfigError, match="reads a knowledge graph"):
        read(folder, "CKE", load_col={"inter": COLUMNS})


def test_further_files_do_not_bring_items_into_a_period(tmp_path):
    rows = [f"u{n % 6}\ti{n // 7}\t1\t{n}" for n in range(96)]
    vectors = ["iid:token\tvec:float_seq", *(f"i{n}\t{n} 1" for n in range(14))]
    folder = write(tmp_path, inter=[HEAD, *rows], emb=vectors)
    names = []
    for period in (0, 1):
        dataset = read(
            folder, split=False, continual_cuts=[0.5, 1.0], continual_period=period,
            load_col={"inter": COLUMNS, "emb": ["iid", "vec"]}, additional_feat_suffix=["emb"],
            alias_of_item_id=["iid"], preload_weight={"iid": "vec"},
        )  # fmt: skip
        names.append(list(dataset.field2id_token["item_id"]))
    assert len(names[0]) == 8 and names[1][:8] == names[0]


# Benchmark files


SAMPLES = ["user_id:token\titem_id_list:token_seq\titem_id:token\trating:float",
           *(f"u{n}\ti{n} i{n + 1}\ti{n + 2}\t1" for n in range(12))]  # fmt: skip


def samples(folder, model="SASRec", columns=("user_id", "item_id_list", "item_id", "rating"), **v):
    values = {"benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": [*columns]}}
    return read(folder, model, **{**values, **v})


def test_filters_of_benchmark_files_and_files_of_other_columns_are_refused(tmp_path):
    folder = write(tmp_path, train_inter=SAMPLES, valid_inter=SAMPLES, test_inter=SAMPLES)
    assert samples(folder).item_num == 15
    for values in (
        {"val_interval": {"user_id": ["u1"]}},
        {"user_inter_num_interval": "[5,inf)"},
        {"rm_dup_inter": "first"},
    ):
        with pytest.raises(ConfigError, match="not filtered"):
            samples(folder, **values)
    write(tmp_path, test_inter=[row.rpartition("\t")[0] for row in SAMPLES])
    with pytest.raises(ConfigError, match=r"odd\.test\.inter has the columns"):
        samples(folder)
    samples(folder, columns=("user_id", "item_id_list", "item_id"))
    write(tmp_path, test_inter=[SAMPLES[0].replace("rating:float", "rating:token"), *SAMPLES[1:]])
    with pytest.raises(ConfigError, match=r"odd\.test\.inter has the columns"):
        samples(folder)


def test_models_that_cannot_read_samples_say_so_and_general_ones_can(tmp_path, monkeypatch):
    folder = write(tmp_path, train_inter=SAMPLES, valid_inter=SAMPLES, test_inter=SAMPLES)
    with pytest.raises(ConfigError, match="benchmark_filename: DIEN"):
        samples(folder, "DIEN", **BY_LABEL)
    monkeypatch.chdir(tmp_path)
    result = run_recbole_gr("BPR", "odd", config_dict={
        "data_path": str(folder), "benchmark_filename": ["train", "valid", "test"], "epochs": 1,
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]}, "show_progress": False,
        "topk": [5], "valid_metric": "NDCG@5",
    })  # fmt: skip
    assert result["test_targets"]["count"] == 12 and result["example"] is None
    result = run_recbole_gr("SASRec", "odd", config_dict={
        "data_path": str(folder), "benchmark_filename": ["train", "valid", "test"], "epochs": 1,
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]}, "show_progress": False,
        "topk": [5], "valid_metric": "NDCG@5",
    })  # fmt: skip
    recommender = Recommender.load(result["checkpoint"])
    assert len(recommender.recommend(histories=[["i1", "i2"]], k=3)[0].items) == 3
    command = recommend_command(result["checkpoint"], result["example"])
    assert " --history=i2 --k=5" in command and recommend(shlex.split(command)[3:]) == 0
    with pytest.raises(ConfigError, match="benchmark files.*give histories"):
        recommender.recommend(users=["u1"])


# Evaluation by label


def run(folder, model="LR", **values):
    return run_recbole_gr(model, "odd", config_dict={
        "data_path": str(folder), "epochs": 1, "show_progress": False, **BY_LABEL,
        "metrics": ["AUC", "LogLoss"], "threshold": {"rating": 4}, **values,
    })  # fmt: skip


def test_a_bucket_of_one_labelled_row_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = "u1\tnever-seen-before\t5\t1000"  # the last in time, and the only row of a new item
    by_time = {"split": {"RS": [0.7, 0.15, 0.15]}, "order": "TO", "mode": "labeled"}
    result = run(write(tmp_path, inter=[HEAD, *ROWS, new]), eval_args=by_time)
    bucket = result["test_buckets"]["0"]
    assert bucket["targets"] == 1 and bucket["logloss"] > 0 and bucket.get("auc") is None


def test_rows_of_one_label_have_no_auc_and_it_is_said_before_training(tmp_path):
    rows = [row.split("\t") for row in ROWS]
    rows = ["\t".join([user, item, "5", time]) for user, item, _, time in rows]
    with pytest.raises(ConfigError, match=r"AUC .* validation have the label 1"):
        read(write(tmp_path, inter=[HEAD, *rows]), "LR", threshold={"rating": 4}, **BY_LABEL)


def test_rows_without_users_and_items_are_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["label:float\tsite:token\tprice:float", *(f"{n % 2}\ts{n % 5}\t{n}" for n in range(80))]
    result = run(write(tmp_path, inter=rows), threshold=None, USER_ID_FIELD=None,
                 ITEM_ID_FIELD=None, load_col={"inter": ["label", "site", "price"]})  # fmt: skip
    assert 0 <= result["test_result"]["auc"] <= 1 and result["test_buckets"] is None
