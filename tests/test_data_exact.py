"""Data sets hold what their files say, in the order of the times written there."""

import logging
import random

import numpy as np
import pytest
import torch
from data_helpers import LEAVE_ONE_OUT, Generative, GenerativeWithTimes, make_config
from recbole.data.dataset import SequentialDataset

from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.frequency import training_counts
from recbole_gr.data.item_file import ItemFile
from recbole_gr.data.numbers import ranks
from recbole_gr.errors import ConfigError
from recbole_gr.serving.histories import Histories

pytestmark = pytest.mark.usefixtures("quiet_argv")
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
NEGATIVES = {"distribution": "uniform", "sample_num": 1}
BY_TIME = {"split": {"TS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"}


def write(folder, rows, head=HEADER, suffix="inter", end=""):
    path = folder / "odd" / f"odd.{suffix}"
    path.parent.mkdir(exist_ok=True)
    lines = [head + end, *("\t".join(map(str, row)) + end for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def odd(folder, model=Generative, **values):
    if model in ("BPR", "FPMC"):
        values = {"train_neg_sample_args": NEGATIVES, **values}
    return make_config(folder, model, "odd", **values)


def log(start="1700000000", step=7, n_users=40, n_events=9):
    """Rows of all users, `step` units of the last digit apart, and their items in order."""
    whole, _, fraction = start.partition(".")
    rows, sequences = [], {}
    for user in range(n_users):
        items = [f"i{(user * 3 + event * 5) % 40}" for event in range(n_events)]
        sequences[f"u{user}"] = items
        for event, item in enumerate(items):
            time = int(whole + fraction) + step * (event + n_events * (user % 4))
            digits = str(time)
            split = len(digits) - len(fraction)
            text = digits[:split] + ("." + digits[split:] if fraction else "")
            rows.append((f"u{user}", item, 1, text))
    random.Random(0).shuffle(rows)
    return rows, sequences


def items_by_user(dataset, histories):
    """Item tokens of each user's whole history."""
    tokens, users = dataset.field2id_token["item_id"], dataset.field2id_token["user_id"]
    rows = histories.items(torch.arange(len(histories)))
    return {
        str(users[user]): [str(tokens[item]) for item in row if item]
        for user, row in enumerate(rows.tolist())
        if user
    }


def targets(split):
    users, items = split.field2id_token["user_id"], split.field2id_token["item_id"]
    rows = split.inter_feat
    pairs = zip(rows["user_id"].tolist(), rows["item_id"].tolist())
    return sorted((str(users[user]), str(items[item])) for user, item in pairs)


# Times


@pytest.mark.parametrize(
    "start, step",
    [
        ("1700000000", 7),  # seconds: 128 of them are one float32
        ("1700000000123", 7),
        ("1700000000123456", 1),
        ("1700000000123456789", 1),  # more digits than float64 has
        ("1700000000.123456789", 1),
        ("-17000000000", 3),
    ],
)
@pytest.mark.parametrize("model", [Generative, GenerativeWithTimes, "SASRec", "BPR", "FPMC"])
def test_targets_and_histories_follow_the_times_as_written(model, start, step, tmp_path):
    rows, sequences = log(start, step)
    if start.startswith("-"):
        rows = [(*row[:3], str(int(row[3]))) for row in rows]
    config = odd(write(tmp_path, rows), model)
    dataset = create_dataset(config)
    assert items_by_user(dataset, Histories.known(dataset)) == sequences
    splits = dataset.build()
    assert targets(splits[2]) == sorted((user, items[-1]) for user, items in sequences.items())
    assert targets(splits[1]) == sorted((user, items[-2]) for user, items in sequences.items())
    assert targets(splits[0]) == sorted(
        (user, item)
        for user, items in sequences.items()
        for item in (items[:-2] if model == "BPR" else items[1:-2])
    )


def test_training_histories_are_those_of_a_sorted_file_without_float32(tmp_path):
    rows, sequences = log()
    dataset = create_dataset(odd(write(tmp_path, rows), MAX_ITEM_LIST_LENGTH=20))
    train = dataset.build()[0]
    tokens = train.field2id_token["item_id"]
    for row in range(len(train)):
        user = str(train.field2id_token["user_id"][train.inter_feat["user_id"][row]])
        length = int(train.inter_feat["item_length"][row])
        history = [str(tokens[i]) for i in train.inter_feat["item_id_list"][row, :length]]
        assert history == sequences[user][:length]
        assert str(tokens[train.inter_feat["item_id"][row]]) == sequences[user][length]


def test_a_log_is_the_same_whether_it_comes_whole_or_as_one_period(tmp_path):
    rows, _ = log()
    folder = write(tmp_path, rows)
    whole = create_dataset(odd(folder))
    period = create_dataset(
        odd(folder, continual_cuts=[1.0], continual_period=0, continual_train="period")
    )
    histories = [items_by_user(data, Histories.known(data)) for data in (whole, period)]
    assert histories[0] == histories[1]
    parts = [[targets(split) for split in data.build()] for data in (whole, period)]
    assert parts[0] == parts[1]


def test_equal_times_keep_the_order_of_the_file(tmp_path):
    rows = [("u", f"i{number}", 1, 5 + (number > 6)) for number in (7, 3, 1, 2, 9, 8, 0, 6, 5, 4)]
    dataset = create_dataset(odd(write(tmp_path, rows)))
    expected = [f"i{number}" for number in (3, 1, 2, 0, 6, 5, 4, 7, 9, 8)]
    assert items_by_user(dataset, Histories.known(dataset)) == {"u": expected}


def test_ids_are_numbered_in_the_order_of_the_file_as_recbole_does(tmp_path):
    rows, _ = log()
    config = odd(write(tmp_path, rows))
    ours, recboles = create_dataset(config), SequentialDataset(config)
    for field in ("user_id", "item_id"):
        assert list(ours.field2id_token[field]) == list(recboles.field2id_token[field])


@pytest.mark.parametrize("keep, place", [("first", 0), ("last", -1)])
def test_the_first_or_last_of_repeated_interactions_is_kept_by_exact_time(tmp_path, keep, place):
    times = [1700000000 + 3 * number for number in range(20)]
    rows = [("u", "i", number, time) for number, time in enumerate(times)]
    rows += [("u", "j", 0, 1700000001), ("u", "k", 0, 1700000002)]
    random.Random(1).shuffle(rows)
    config = odd(write(tmp_path, rows), rm_dup_inter=keep, normalize_all=False)
    feat = create_dataset(config).inter_feat
    repeated = feat[feat["rating"] > 0] if keep == "last" else feat
    assert len(feat) == 3 and repeated["timestamp"].max() == max(times[place], 1700000002)
    with pytest.raises(ConfigError, match="rm_dup_inter: 'middle' is not one of first, last"):
        create_dataset(odd(tmp_path, rm_dup_inter="middle"))


def test_a_split_by_time_compares_exact_times(tmp_path):
    rows = [(f"u{n % 5}", f"i{n % 7}", 1, 1700000000 + n) for n in range(100)]
    random.Random(2).shuffle(rows)
    dataset = create_dataset(odd(write(tmp_path, rows), "BPR", eval_args=BY_TIME))
    train, valid, test = dataset.build()
    assert len(test) == 20  # all of them are one float32, and so would be one part
    assert test.inter_feat["timestamp"].dtype == torch.float32
    last = sorted(rows, key=lambda row: row[3])[-20:]
    assert targets(test) == sorted((user, item) for user, item, _, _ in last)
    with pytest.raises(ConfigError, match="order: TO"):
        create_dataset(odd(tmp_path, "BPR", eval_args={**BY_TIME, "order": "RO"})).build()


def test_ranks_compare_numbers_digit_by_digit():
    cells = ["9007199254740993", "9007199254740992", "5", "9007199254740993.0", "1e3", "5.0"]
    values = np.array([float(cell) for cell in cells])
    assert values[0] == values[1]
    assert ranks(cells, values).tolist() == [3, 2, 0, 3, 1, 0]
    assert ranks([], np.zeros(0)).tolist() == []


def test_order_by_time_without_times_is_refused(tmp_path):
    write(tmp_path, [("u", "i"), ("u", "j")], "user_id:token\titem_id:token")
    dataset = create_dataset(odd(tmp_path, "BPR", load_col={"inter": ["user_id", "item_id"]}))
    with pytest.raises(ConfigError, match=r"order: TO needs times.*'timestamp' \(TIME_FIELD"):
        dataset.build()


# Missing values


def test_few_missing_times_are_left_out_and_counted_and_more_are_refused(tmp_path, caplog):
    rows, _ = log(n_users=40)  # 360 rows
    for place in (3, 200):
        rows[place] = (*rows[place][:3], "")
    with caplog.at_level(logging.WARNING):
        dataset = create_dataset(odd(write(tmp_path, rows), normalize_all=False))
    assert len(dataset.inter_feat) == 358
    assert dataset.inter_feat["timestamp"].min() >= 1700000000
    assert "2 of 360 rows have no timestamp, first in line 5; they are left out" in caplog.text
    for place in (7, 8):
        rows[place] = (*rows[place][:3], "")
    for model in (Generative, "SASRec", "BPR"):
        with pytest.raises(ConfigError, match=r"odd.inter: 4 of 360 .*max_missing=0.01"):
            create_dataset(odd(write(tmp_path, rows), model))
    assert len(create_dataset(odd(tmp_path, max_missing=0.02)).inter_feat) == 356


def test_a_missing_label_is_not_the_mean_of_all_labels(tmp_path, caplog):
    rows = [(f"u{n % 5}", f"i{n % 7}", 5 if n != 9 else "", n) for n in range(100)]
    config = odd(write(tmp_path, rows), "BPR", threshold={"rating": 4})
    dataset = create_dataset(config)
    assert len(dataset.inter_feat) == 99 and "have no rating" in caplog.text


def test_other_missing_numbers_take_the_mean_and_it_is_said(tmp_path, caplog):
    rows = [(f"u{n % 5}", f"i{n % 7}", 4 if n != 9 else "", n) for n in range(50)]
    dataset = create_dataset(odd(write(tmp_path, rows), "BPR", normalize_all=False))
    assert dataset.inter_feat["rating"].eq(4).all()
    assert "1 of 50 rows of inter in 'odd' have no rating; they take the mean" in caplog.text


@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_rows_without_a_user_or_an_item_are_left_out_once_and_counted(model, tmp_path, caplog):
    rows = [(f"u{n % 5}", f"i{n % 7}", 1, n) for n in range(60)]
    rows[4] = ("", "i3", 1, 4)
    rows[5] = ("u1", "", 1, 5)
    rows[30] = ("", "", 1, 30)
    dataset = create_dataset(odd(write(tmp_path, rows), model))
    assert "3 of 60 rows have no user_id or no item_id, first in line 6" in caplog.text
    feat = dataset.inter_feat
    assert len(feat) == 57 and feat["user_id"].min() == feat["item_id"].min() == 1
    assert (dataset.user_num, dataset.item_num) == (6, 8)
    kept = [row for n, row in enumerate(rows) if n not in (4, 5, 30)]
    tokens = dataset.field2id_token
    found = sorted(zip(tokens["user_id"][feat["user_id"]], tokens["item_id"][feat["item_id"]]))
    assert found == sorted((user, item) for user, item, _, _ in kept)


NAMES = ["NA", "None", "null", "nan", "NaN", "N/A", "n/a", "", "<NA>", "NULL", "#N/A", "-nan"]


@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_only_an_empty_cell_is_missing(model, tmp_path):
    names = [name for name in NAMES if name]
    rows = [(f"u{u}", item, 1, 100 * u + n) for u in range(4) for n, item in enumerate(names)]
    rows += [(user, "i0", 1, 9) for user in names]
    write(tmp_path, rows)
    items = [(name, f"film {n}") for n, name in enumerate([*names, "i0"])]
    write(tmp_path, items, "item_id:token\ttitle:token_seq", "item")
    load_col = {"inter": HEADER.replace(":token", "").replace(":float", "").split("\t"),
                "item": ["item_id", "title"]}  # fmt: skip
    config = odd(tmp_path, model, load_col=load_col)
    dataset = create_dataset(config)
    assert set(names) <= set(dataset.field2id_token["item_id"])
    assert set(names) <= set(dataset.field2id_token["user_id"])
    assert len(dataset.inter_feat) == len(rows)
    assert list(ItemFile(config).cells["item_id"]) == [*names, "i0"]
    titles = dataset.item_feat["title"]
    words = dataset.field2id_token["title"]
    row = dataset.field2token_id["item_id"]["null"]
    assert [str(words[word]) for word in titles[row]] == ["film", str(names.index("null"))]


# Samples that are made already


HISTORY = "user_id:token\titem_id_list:token_seq\titem_id:token"


def write_samples(folder, head=HEADER, rows=None):
    """Three benchmark files; the items of the histories appear in another order than targets."""
    rows = rows or {
        "train": [("u1", "i5 i4", "i3"), ("u2", "i9 i8 i7 i6", "i5")],
        "valid": [("u1", "i5 i4 i3", "i2"), ("u2", "i8 i7 i6 i5", "i4")],
        "test": [("u1", "i5 i4 i3 i2", "i1"), ("u2", "i7 i6 i5 i4", "i3")],
    }
    for name, part in rows.items():
        write(folder, part, head, f"{name}.inter")
    return folder


def samples_config(folder, model=Generative, **values):
    columns = ["user_id", "item_id_list", "item_id", "timestamp_list"]
    return odd(folder, model, **{
        "benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": columns}, **values
    })  # fmt: skip


@pytest.mark.parametrize("model", [Generative, "SASRec"])
@pytest.mark.parametrize("alias", [None, ["item_id_list"]])
def test_a_history_list_has_the_numbering_of_the_items(model, alias, tmp_path):
    config = samples_config(write_samples(tmp_path, HISTORY), model, alias_of_item_id=alias)
    dataset = create_dataset(config)
    tokens = dataset.field2id_token["item_id"]
    assert sorted(tokens[1:]) == [f"i{n}" for n in range(1, 10)]
    train, valid, test = (loader._dataset for loader in data_preparation(config, dataset))
    found = []
    for row in range(len(test)):
        history = test.inter_feat["item_id_list"][row]
        found.append([str(tokens[item]) for item in history if item])
    assert found == [["i5", "i4", "i3", "i2"], ["i7", "i6", "i5", "i4"]]
    assert test.inter_feat["item_length"].tolist() == [4, 4]


@pytest.mark.parametrize("model", [Generative, "SASRec"])
def test_a_list_longer_than_a_history_keeps_its_newest_items(model, tmp_path):
    folder = write_samples(tmp_path, HISTORY)
    for values in (
        {"MAX_ITEM_LIST_LENGTH": 3},
        {"MAX_ITEM_LIST_LENGTH": 5, "seq_len": {"item_id_list": 3}},
    ):
        config = samples_config(folder, model, **values)
        dataset = create_dataset(config)
        tokens, test = dataset.field2id_token["item_id"], dataset.build()[2].inter_feat
        found = [[str(tokens[item]) for item in row] for row in test["item_id_list"]]
        assert found == [["i4", "i3", "i2"], ["i6", "i5", "i4"]]
        assert test["item_length"].tolist() == [3, 3]


def test_lists_of_other_fields_are_numbered_as_the_field(tmp_path):
    head = "user_id:token\titem_id:token\tshop:token\titem_id_list:token_seq\tshop_list:token_seq"
    part = [("u1", "a", "x", "b c", "y z"), ("u2", "c", "z", "a b", "x y")]
    folder = write_samples(tmp_path, head, dict.fromkeys(("train", "valid", "test"), part))
    columns = [cell.partition(":")[0] for cell in head.split("\t")]
    config = samples_config(folder, "SASRec", load_col={"inter": columns})
    dataset = create_dataset(config)
    shops = dataset.field2id_token["shop"]
    feat = dataset.build()[0].inter_feat
    assert [[str(shops[s]) for s in row] for row in feat["shop_list"]] == [["y", "z"], ["x", "y"]]
    assert [str(shops[s]) for s in feat["shop"]] == ["x", "z"]


def test_odd_samples_are_refused(tmp_path):
    folder = write_samples(tmp_path, HISTORY)
    with pytest.raises(ConfigError, match="must name three files"):
        create_dataset(samples_config(folder, benchmark_filename=["train", "test"]))
    with pytest.raises(ConfigError, match="benchmark_filename: 'train' must be a list"):
        create_dataset(samples_config(folder, benchmark_filename="train"))
    with pytest.raises(ConfigError, match="item_id_list.*leave it out"):
        create_dataset(samples_config(folder, load_col={"inter": ["user_id", "item_id"]}))
    write(folder, [("u1", "", "i3"), ("u2", "i1", "i2")], HISTORY, "valid.inter")
    with pytest.raises(ConfigError, match=r"valid.inter, line 2: the history 'item_id_list' is em"):
        create_dataset(samples_config(folder))
    write(folder, [("u1", "i3")], "user_id:token\titem_id:token", "valid.inter")
    with pytest.raises(ConfigError, match=r"valid.inter has no column 'item_id_list'"):
        create_dataset(samples_config(folder))


def test_lists_of_one_sample_must_have_one_length(tmp_path):
    head = HISTORY + "\ttimestamp_list:float_seq"
    part = [("u1", "b c", "a", "1 2"), ("u2", "a b", "c", "1 2 3")]
    folder = write_samples(tmp_path, head, dict.fromkeys(("train", "valid", "test"), part))
    with pytest.raises(ConfigError, match=r"line 3: 3 entries of 'timestamp_list' and 2 of"):
        create_dataset(samples_config(folder))


def test_counts_of_training_items_hold_for_samples_and_logs(tmp_path):
    rows = [("u1", f"i{n}", 1, n) for n in range(6)] + [("u2", f"i{n}", 1, n) for n in range(3, 8)]
    dataset = create_dataset(odd(write(tmp_path, rows)))
    train = dataset.build()[0]
    counts = dict(zip(map(str, train.field2id_token["item_id"]), training_counts(train).tolist()))
    assert counts == {"[PAD]": 0, "i0": 1, "i1": 1, "i2": 1, "i3": 2, "i4": 1, "i5": 1,
                      "i6": 0, "i7": 0}  # fmt: skip


# Filters


FILTERED = [(f"u{n % 5}", f"i{n % 7}", n % 4, n) for n in range(70)]


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"user_inter_num_interval": 5}, "user_inter_num_interval: 5 must be an interval"),
        ({"user_inter_num_interval": "[8,inf"}, r"'\[8,inf' must be an interval such as '\[5,inf"),
        ({"item_inter_num_interval": "[9,3]"}, "the lower bound first"),
        ({"item_inter_num_interval": "[a,b]"}, "must be an interval"),
        ({"val_interval": {"rating": 3}}, "val_interval.*3"),
        ({"val_interval": {"rating": [3]}}, "float column 'rating' must be an interval"),
        ({"val_interval": {"item_id": "[1,2]"}}, "'item_id' must be a list of tokens"),
        ({"val_interval": {"stars": "[1,2]"}}, "'stars' is no token or float column"),
        ({"user_inter_num_interval": "[100,inf)"}, r"the filters leave no row.*\[100,inf"),
        ({"val_interval": {"rating": "[7,9]"}}, "the filters leave no row"),
    ],
)
@pytest.mark.parametrize("model", [Generative, "BPR"])
def test_a_filter_that_cannot_be_read_or_leaves_nothing_is_refused(
    model, values, complaint, tmp_path
):
    folder = write(tmp_path, FILTERED)
    with pytest.raises(ConfigError, match=complaint):
        create_dataset(odd(folder, model, **values))


def test_filters_keep_what_they_say(tmp_path):
    folder = write(tmp_path, FILTERED)
    config = odd(folder, val_interval={"rating": "[1,2];(2.5,3]"}, normalize_all=False)
    assert set(create_dataset(config).inter_feat["rating"]) == {1, 2, 3}
    config = odd(folder, val_interval={"rating": "(1,3)"}, normalize_all=False)
    assert set(create_dataset(config).inter_feat["rating"]) == {2}
    write(tmp_path, [(user, item[1:], r, t) for user, item, r, t in FILTERED])
    config = odd(tmp_path, val_interval={"item_id": [1, 2]})  # numbers in place of tokens
    assert sorted(create_dataset(config).field2id_token["item_id"][1:]) == ["1", "2"]


# Splits


def test_a_split_without_targets_says_why(tmp_path):
    rows = [(f"u{n // 2}", f"i{n}", 1, n) for n in range(20)]
    for model, least in ((Generative, "four"), ("BPR", "three")):
        config = odd(write(tmp_path, rows), model, eval_args=LEAVE_ONE_OUT)
        with pytest.raises(ConfigError, match=f"no .* targets.*at least {least}"):
            data_preparation(config, create_dataset(config))


@pytest.mark.parametrize("split", [{"RS": [1, 0, 0]}, {"RS": [0.9, 0.1, 0]}, {"LS": "valid_only"}])
def test_a_split_without_a_test_would_give_an_empty_table(split, tmp_path):
    evaluation = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    config = odd(write(tmp_path, log()[0]), "BPR", eval_args=evaluation)
    with pytest.raises(ConfigError, match="no test targets"):
        data_preparation(config, create_dataset(config))
    evaluation["split"] = {"LS": "test_only"}
    config = odd(tmp_path, "BPR", eval_args=evaluation)
    assert len(create_dataset(config).build()[2]) == 40


def test_a_period_without_targets_is_named(tmp_path):
    rows = [(f"u{n}", f"i{n}", 1, n) for n in range(40)]
    config = odd(write(tmp_path, rows), continual_cuts=[0.5, 1.0], continual_period=1)
    with pytest.raises(ConfigError, match=r"no training targets .* in period 1\. .* three there"):
        data_preparation(config, create_dataset(config))
