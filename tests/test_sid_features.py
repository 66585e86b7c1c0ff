"""SIDs as fields of an `.item` file, and click-through models on them."""

import hashlib
import shutil

import pytest
import torch
from recbole.utils import init_seed

from recbole_gr.commands.sid_features import compare_features, main, sid_features
from recbole_gr.commands.sid_fields import prefix_tokens, write_sid_dataset
from recbole_gr.config import Config
from recbole_gr.data import create_dataset
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.sid.table import SIDTable


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def options(tiny_folder):
    return {
        "data_path": str(tiny_folder),
        "threshold": {"rating": 3},
        "load_col": {"inter": ["user_id", "item_id", "rating"], "item": ["item_id", "genre"]},
        "codebook_size": 4,
        "content_dim": 8,
        "show_progress": False,
    }


def digest_of(folder):
    files = sorted(folder.iterdir())
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]


def read(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(rows[0], row)) for row in rows[1:]]


def test_a_field_holds_the_prefix_and_the_suffix_of_a_policy_is_no_field():
    codes = torch.tensor([[3, 0, 1, 0], [3, 0, 1, 1], [3, 2, 1, 0]])
    table = SIDTable.from_item_codes(codes, (4, 3, 2, 2), {"content_levels": 3})
    assert prefix_tokens(table) == [
        ["3", "3", "3"], ["3-0", "3-0", "3-2"], ["3-0-1", "3-0-1", "3-2-1"]
    ]  # fmt: skip


def test_hashed_prefixes_fall_evenly_and_equal_ones_together():
    number = torch.arange(4096)
    codes = torch.stack([number // 256, number // 16 % 16, number % 16], 1)
    table = SIDTable.from_item_codes(torch.cat([codes, codes]), (16, 16, 16))
    for column in prefix_tokens(table, 50):
        assert column[:4096] == column[4096:]
        assert all(0 <= int(token) < 50 for token in column)
    counts = torch.bincount(torch.tensor([int(token) for token in column[:4096]]), minlength=50)
    assert int(counts.min()) > 40 and int(counts.max()) < 140  # 82 on average
    with pytest.raises(ConfigError, match="hash_size: 0"):
        prefix_tokens(table, 0)


def test_the_new_data_set_has_all_lines_and_the_old_one_is_untouched(options, tiny_folder):
    before = digest_of(tiny_folder / "tiny")
    written = sid_features("tiny", "out", config_dict=options)
    assert digest_of(tiny_folder / "tiny") == before
    assert written["fields"] == ["sid_1", "sid_2", "sid_3"]
    old = read(tiny_folder / "tiny" / "tiny.item")
    folder = written["files"][0].parent
    new = read(folder / "tiny-sid.item")
    assert [{k: row[k] for k in old[0]} for row in new] == old
    for row in new:
        assert row["sid_2:token"].startswith(row["sid_1:token"] + "-")
        assert row["sid_3:token"].startswith(row["sid_2:token"] + "-")
    inter = (tiny_folder / "tiny" / "tiny.inter").read_bytes()
    assert (folder / "tiny-sid.inter").read_bytes() == inter
    assert {file.name for file in folder.iterdir()} == {
        "tiny-sid.item", "tiny-sid.inter", "tiny-sid.yaml"
    }  # fmt: skip


@pytest.mark.parametrize("model", ["DeepFM", "DCNV2", "AutoInt"])
def test_recboles_models_run_on_the_new_data_set_as_on_any(options, model):
    written = sid_features("tiny", "out", 3, config_dict=options)
    settings = {"data_path": "out", "epochs": 1, "show_progress": False}
    result = run_recbole_gr(model, "tiny-sid", [str(written["files"][-1])], settings)
    assert 0 < result["test_result"]["auc"] < 1
    assert result["config"]["load_col"]["item"] == ["item_id", "genre", "sid_1", "sid_2", "sid_3"]


def test_the_item_id_can_be_kept_from_a_model_that_sees_the_same_rows(options):
    written = sid_features("tiny", "out", config_dict=options)
    names, digests = [], set()
    settings = {**written["settings"], "data_path": "out", "show_progress": False, "epochs": 1}
    for hide in (False, True):
        config = Config("DeepFM", "tiny-sid", config_dict={**settings, "hide_item_id": hide})
        init_seed(config["seed"], True)
        train = create_dataset(config).build()[0]
        model = config.model_class(config, train)
        names.append(set(model.token_field_names))
        digests.add(tuple(train.inter_feat["item_id"].tolist()))
    assert names[0] - names[1] == {"item_id"} and {"sid_1", "sid_3", "user_id"} <= names[1]
    assert len(digests) == 1
    with pytest.raises(ConfigError, match="hide_item_id: BPR is no context-aware model"):
        create_dataset(Config("BPR", "tiny-sid", config_dict={**settings, "hide_item_id": True}))


def test_the_comparison_trains_three_variants_on_the_same_rows(options):
    options = {**options, "epochs": 1, "eval_buckets": [0, 14]}
    written = sid_features("tiny", "out", config_dict=options)
    results = compare_features(written, "DeepFM", config_dict=options)
    assert [result["model"] for result in results] == [
        "DeepFM, item id", "DeepFM, SID", "DeepFM, item id and SID"
    ]  # fmt: skip
    assert len({result["test_targets"]["digest"] for result in results}) == 1
    ids, sids, both = (result["parameters"] for result in results)
    assert both > max(ids, sids) and ids != sids
    for result in results:
        assert set(result["test_buckets"]) == {"0-13", "14+"}


def test_content_of_the_split_holds_no_test_interaction(options, monkeypatch):
    from recbole_gr.data import content

    seen, make = [], content._collaborative

    def spy(config, dataset, tokens):
        seen.append(dataset)
        return make(config, dataset, tokens)

    monkeypatch.setattr(content, "_collaborative", spy)
    sid_features("tiny", "out", config_dict={**options, "item_content": "collaborative"})
    config = Config("DeepFM", "tiny", config_dict=options, other_models=["TIGER"])
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = create_dataset(config).build()
    assert seen[0].inter_feat["item_id"].tolist() == train.inter_feat["item_id"].tolist()
    assert len(test) > 0


def test_items_without_a_line_get_one(options, tiny_folder, tmp_path, caplog):
    shutil.copytree(tiny_folder / "tiny", tmp_path / "data" / "tiny")
    path = tmp_path / "data" / "tiny" / "tiny.item"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")
    load_col = {"inter": options["load_col"]["inter"]}  # else RecBole drops these items
    given = {**options, "data_path": str(tmp_path / "data"), "load_col": load_col}
    written = sid_features("tiny", "out", config_dict=given)
    rows = read(written["files"][0])
    assert len(rows) == 40 and rows[-1]["genre:token_seq"] == "" and rows[-1]["sid_3:token"]
    assert "2 items have no line" in caplog.text


def test_bad_input_is_named(options, tiny_folder, tmp_path, capsys):
    written = sid_features("tiny", "out", config_dict=options)
    again = {**options, "data_path": "out", **written["settings"]}
    with pytest.raises(ConfigError, match="already has the fields .*sid_1"):
        sid_features("tiny-sid", "again", config_dict=again)
    config = Config("DeepFM", "tiny", config_dict=options, other_models=["TIGER"])
    table = SIDTable.from_item_codes(torch.zeros(40, 1).long(), (1,))
    shutil.copytree(tiny_folder / "tiny", tmp_path / "same" / "tiny-sid")
    config["data_path"] = str(tmp_path / "same" / "tiny-sid")
    with pytest.raises(ConfigError, match="is the data set itself"):
        write_sid_dataset(config, table, ["[PAD]"], tmp_path / "same")
    common = ["--dataset=tiny", f"--data_path={tiny_folder}", "--threshold={'rating': 3}"]
    assert main([*common, "--compare=BPR"]) == 2
    assert "BPR is no context-aware model" in capsys.readouterr().err
    assert main([*common, "--tokenizer=I2IRKMeans"]) == 2
    assert "learns from sequences" in capsys.readouterr().err
    assert main([*common, "--codebok_size=4"]) == 2
    assert "codebook_size" in capsys.readouterr().err
    assert main(["--help"]) == 0


def test_the_command_prints_auc_and_log_loss_by_bucket(tiny_folder, capsys):
    arguments = ["--dataset=tiny", f"--data_path={tiny_folder}", "--threshold={'rating': 3}",
                 "--compare=DeepFM", "--epochs=1", "--codebook_size=4", "--show_progress=False",
                 "--eval_buckets=[0, 14]", "--hash_size=20"]  # fmt: skip
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][:3] == ["model", "AUC", "LogLoss"] and len(cells) == 5 + 8
    assert cells[5] == ["model", "in training", "targets", "AUC", "LogLoss"]
    assert [row[1] for row in cells[7:]] == ["0-13", "14+"] * 3
