"""From content to the SID table of a run: files, cache, and the command line."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.pipeline import sids as pipeline
from recbole_gr.pipeline.sids import prepare_sid
from recbole_gr.sid.exchange import read_json, write_json, write_npy
from recbole_gr.sid.table import SIDTable
from recbole_gr.tokenizer.rkmeans import RKMeans

TOKENS = ["[PAD]"] + [f"item{number}" for number in range(1, 61)]


def item_content(seed=0, tokens=TOKENS):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(tokens), 10, generator=generator)
    vectors[0] = 0
    return SimpleNamespace(vectors=vectors, digest=f"content{seed}", item_tokens=list(tokens))


@pytest.fixture
def config(tmp_path):
    return {
        "dataset": "toy",
        "tokenizer": "RKMeans",
        "codebook_size": 6,
        "sid_levels": 2,
        "seed": 1,
        "sid_dir": str(tmp_path / "sid"),
        "show_progress": False,
        "device": "cpu",
    }


@pytest.fixture
def fits(monkeypatch):
    """Counts the fits."""
    seen, fit = [], RKMeans.fit_content

    def counted(self, *args):
        seen.append(1)
        return fit(self, *args)

    monkeypatch.setattr(RKMeans, "fit_content", counted)
    return seen


def test_learned_table_covers_all_items_uniquely_and_is_reported(config, caplog):
    caplog.set_level(logging.INFO)
    table, report = prepare_sid(config, item_content())
    assert table.n_items == 61 and table.n_levels == 3
    assert report.distinct == 60 and report.before_policy["collision_rate"] > 0
    assert table.meta["options"]["codebook_size"] == 6
    assert "SID quality: 60 items" in caplog.text


def test_second_run_finds_the_table_of_the_first(config, fits):
    first, _ = prepare_sid(config, item_content())
    second, report = prepare_sid(config, item_content())
    assert len(fits) == 1
    assert first.digest() == second.digest()
    assert report.before_policy == first.meta["before_policy"]


@pytest.mark.parametrize("change", [
    {"codebook_size": 7}, {"seed": 2}, {"tokenizer_seed": 9}, {"collision": "share"},
    {"kmeans_iterations": 3}, {"tokenizer": "OPQ", "codebook_size": 4},
])  # fmt: skip
def test_other_options_make_another_table(config, fits, change):
    prepare_sid(config, item_content())
    prepare_sid({**config, **change}, item_content())
    assert len(list((pipeline.Path(config["sid_dir"])).glob("*.npz"))) == 2


def test_other_content_or_items_make_another_table(config, fits):
    prepare_sid(config, item_content())
    prepare_sid(config, item_content(seed=1))
    prepare_sid(config, item_content(tokens=TOKENS[:-1]))
    prepare_sid(config, item_content(tokens=TOKENS[:1] + TOKENS[:0:-1]))
    assert len(fits) == 4


def test_an_explicit_seed_equal_to_the_runs_seed_is_the_same_table(config, fits):
    prepare_sid(config, item_content())
    prepare_sid({**config, "tokenizer_seed": 1}, item_content())
    prepare_sid({**config, "show_progress": True, "beam_size": 3}, item_content())
    assert len(fits) == 1


def test_fitted_tokenizer_lies_beside_its_table(config):
    table, _ = prepare_sid(config, item_content())
    (path,) = pipeline.Path(config["sid_dir"]).glob("*.tokenizer.pth")
    again = RKMeans.load(path).tokenize(item_content().vectors)
    assert again.digest() == table.digest()


def test_a_damaged_cache_is_learned_anew(config, fits):
    table, _ = prepare_sid(config, item_content())
    (path,) = pipeline.Path(config["sid_dir"]).glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert prepare_sid(config, item_content())[0].digest() == table.digest()
    assert len(fits) == 2
    assert prepare_sid(config, item_content())[0].digest() == table.digest()
    assert len(fits) == 2


def test_a_tokenizer_that_was_changed_beside_its_table_is_learned_anew(config, fits, caplog):
    table, _ = prepare_sid(config, item_content())
    (path,) = pipeline.Path(config["sid_dir"]).glob("*.tokenizer.pth")
    state = torch.load(path, weights_only=True)
    state["state_dict"] = {name: value + 1 for name, value in state["state_dict"].items()}
    torch.save(state, path)
    assert prepare_sid(config, item_content())[0].digest() == table.digest() and len(fits) == 2
    assert "was changed" in caplog.text


def test_unique_sids_from_a_file_are_taken_as_they_are(config, tmp_path, fits):
    table, _ = prepare_sid(config, item_content())
    for name, write in [
        ("sid.json", lambda path: write_json(table, path, TOKENS)),
        ("sid.npy", lambda path: write_npy(table, path)),
        ("sid.npz", lambda path: table.save(path, TOKENS)),
    ]:
        write(tmp_path / name)
        read, report = prepare_sid({**config, "sid_file": tmp_path / name}, item_content())
        assert torch.equal(read.codes, table.codes)
        assert report.collision_rate == 0
    assert len(fits) == 1


def test_shared_sids_from_a_file_follow_the_policy(config, tmp_path):
    codes = [[number % 7, 0] for number in range(60)]
    (tmp_path / "sid.json").write_text(json.dumps(dict(zip(TOKENS[1:], codes))))
    config["sid_file"] = str(tmp_path / "sid.json")
    table, report = prepare_sid(config, item_content())
    assert table.n_levels == 3 and report.distinct == 60
    assert report.before_policy["distinct"] == 7
    table, report = prepare_sid({**config, "collision": "share"}, item_content())
    assert table.n_levels == 2 and report.distinct == 7
    with pytest.raises(ConfigError, match="only use suffix or share"):
        prepare_sid({**config, "collision": "sinkhorn"}, item_content())


def test_npy_rows_follow_the_item_file_if_there_is_one(config, tmp_path):
    lines = TOKENS[:0:-1] + ["unsold"]
    (tmp_path / "toy.item").write_text("\n".join(["item_id:token", *lines]) + "\n")
    np.save(tmp_path / "sid.npy", np.arange(61)[:, None])
    config.update(sid_file=tmp_path / "sid.npy", data_path=str(tmp_path), encoding="utf-8",
                  ITEM_ID_FIELD="item_id", field_separator="\t", seq_separator=" ")  # fmt: skip
    table, _ = prepare_sid(config, item_content())
    assert table.codes[1:, 0].tolist() == list(range(59, -1, -1))
    np.save(tmp_path / "sid.npy", np.arange(60)[:, None])
    table, _ = prepare_sid(config, item_content())
    assert table.codes[1:, 0].tolist() == list(range(60))


@pytest.mark.parametrize(("name", "text", "message"), [
    ("none.json", None, "does not exist"),
    ("sid.csv", "a,b", "must end in .json, .npy or .npz"),
    ("sid.json", '{"item1": ["<a_1>"]}', "does not cover 59 of 60 items, first 'item2'"),
    ("sid.npy", "text", "cannot be read as .npy"),
    ("sid.npz", "text", "is not a SID table"),
])  # fmt: skip
def test_unusable_sid_files_are_named(config, tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        prepare_sid({**config, "sid_file": tmp_path / name}, item_content())
    assert name in str(error.value)


def test_command_writes_sids_and_report_that_it_can_read_back(tiny_folder, tmp_path, capsys):
    from recbole_gr.commands.tokenize import main

    common = [
        "--dataset=tiny",
        f"--data_path={tiny_folder}",
        "--show_progress=False",
        f"--sid_dir={tmp_path / 'cache'}",
        f"--content_cache_dir={tmp_path / 'content'}",
    ]
    assert main([*common, "--codebook_size=5", f"--output={tmp_path / 'out'}"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "sid.json", "sid.npy", "sid.npz", "report.txt", "report.json", "report.png",
        "provenance.json", "sids.csv", "sids.html", "walk.npz",
    }  # fmt: skip
    sids = json.loads((tmp_path / "out" / "sid.json").read_text())
    assert len(sids) == 40 and len(set(map(tuple, sids.values()))) == 40
    assert json.loads((tmp_path / "out" / "report.json").read_text())["n_items"] == 40
    for name in ("sid.json", "sid.npy", "sid.npz"):
        given = f"--sid_file={tmp_path / 'out' / name}"
        assert main([*common, given, f"--output={tmp_path / name}.out"]) == 0
        again = json.loads((tmp_path / f"{name}.out" / "sid.json").read_text())
        assert again == sids
    tokens = ["[PAD]", *sids]
    read = SIDTable.load(tmp_path / "out" / "sid.npz", tokens)
    assert read.digest() == read_json(tmp_path / "out" / "sid.json", tokens).digest()


def test_command_reports_what_it_cannot_use(tiny_folder, tmp_path, capsys):
    from recbole_gr.commands.tokenize import main

    common = ["--dataset=tiny", f"--data_path={tiny_folder}", f"--output={tmp_path / 'out'}"]
    assert main([*common, "--tokenizer=RKMean"]) == 2
    assert "RKMeans" in capsys.readouterr().err
    assert main([*common, "--codebok_size=5"]) == 2
    assert "codebook_size" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert not (tmp_path / "out").exists()


def test_a_saved_table_holds_content_hash_configuration_seed_and_report(config):
    content = item_content()
    table, report = prepare_sid(config, content)
    (path,) = pipeline.Path(config["sid_dir"]).glob("*.npz")
    meta = SIDTable.load(path, TOKENS).meta
    assert meta["content"] == "content0" and meta["seed"] == 1
    assert meta["options"]["codebook_size"] == 6 and meta["fit"]["seconds"] > 0
    assert meta["report"]["semantics"]["pd"] == report.semantics["pd"]
    again = prepare_sid(config, content)[1]
    assert again.to_dict() == report.to_dict()


def test_sids_learned_from_other_content_are_noticed(config, tmp_path, caplog):
    table, _ = prepare_sid(config, item_content())
    table.save(tmp_path / "sid.npz", TOKENS)
    given = {**config, "sid_file": str(tmp_path / "sid.npz")}
    prepare_sid(given, item_content())
    assert "other item content" not in caplog.text
    prepare_sid(given, item_content(seed=1))
    assert "other item content" in caplog.text


@pytest.mark.slow
def test_command_compares_tokenizers_in_one_table_and_one_figure(tiny_folder, tmp_path, capsys):
    from recbole_gr.commands.tokenize import main

    common = [
        "--dataset=tiny",
        f"--data_path={tiny_folder}",
        "--show_progress=False",
        f"--sid_dir={tmp_path / 'cache'}",
        f"--content_cache_dir={tmp_path / 'content'}",
        f"--output={tmp_path / 'out'}",
        "--codebook_size=4",
    ]
    short = ["--tokenizer_steps=4", "--tokenizer_epochs=2", "--rqvae_dim=4", "--opq_iterations=2"]
    assert main([*common, *short, "--tokenizer=R3VAE,RQVAE,RKMeans,OPQ"]) == 0
    out = tmp_path / "out"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in cells[2:]] == ["R3VAE", "RQVAE", "RKMeans", "OPQ"]
    rows = json.loads((out / "comparison.json").read_text())
    for line, (name, row) in zip(cells[2:], rows.items()):
        report = json.loads((out / name / "report.json").read_text())
        assert line[0] == name and line[1] == f"{row['distinct']:.2%}"
        assert row["distinct"] == report["before_policy"]["distinct"] / 40
        assert row["pd"] == report["semantics"]["pd"] and row["sc"] == report["semantics"]["sc"]
        assert row["seconds"] > 0 and row["peak"] > 0
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "comparison.csv").read_text().count("\n") == 5
    assert main([*common, "--tokenizer=RQVAE,RKMeans", "--rqvae_dimm=4"]) == 2
    assert "did you mean 'rqvae_dim'" in capsys.readouterr().err
    assert main([*common, "--tokenizer=RKMeans,RKMeans"]) == 2
    assert main([*common, "--tokenizer=RKMeans,RQVA"]) == 2
    assert "RQVAE" in capsys.readouterr().err
