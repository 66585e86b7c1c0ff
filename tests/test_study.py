"""Studies: what is run and what is found again, and that the report says no more than it can."""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import ROOT
from recbole.trainer import Trainer
from runs import here

from recbole_gr.errors import ConfigError
from recbole_gr.model.intrr.model import IntRR
from recbole_gr.model.pit.model import PIT
from recbole_gr.registry import get_trainer
from recbole_gr.report.ranks import metric_of
from recbole_gr.run import model as run
from recbole_gr.serving.restore import load_data_and_model
from recbole_gr.storage.checkpoint import versions
from recbole_gr.storage.run_files import held
from recbole_gr.study import workers
from recbole_gr.study.command import main
from recbole_gr.study.earlier import is_run_of
from recbole_gr.study.plan import Cell
from recbole_gr.study.runner import finished_runs, study
from recbole_gr.study.store import finished
from recbole_gr.study.study_file import read_study
from recbole_gr.study.workers import in_processes

SETTINGS = {"epochs": 2, "MAX_ITEM_LIST_LENGTH": 10, "train_batch_size": 64, "topk": [5, 10]}
CE = {"loss_type": "CE"}


@pytest.fixture
def file(tiny_folder, tmp_path, monkeypatch):
    """A function that writes a study file, in a folder of the test."""
    monkeypatch.chdir(tmp_path)

    def file(**changes):
        content = {
            "models": {"SASRec": CE, "small": {"model": "SASRec", "hidden_size": 8, **CE}},
            "datasets": ["tiny"],
            "seeds": [1, 2],
            "settings": {**SETTINGS, "data_path": str(tiny_folder)},
            "baseline": "SASRec",
        }
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
        return path

    return file


@pytest.fixture
def runs(monkeypatch):
    """Runs that train nothing: those that were asked for. The target of user `u3` is first in all
    rankings of `small`, other ranks are drawn by the seed."""
    asked = []

    def fake(config, start):
        row = "small" if config["hidden_size"] == 8 else "other"
        asked.append((config["dataset"], row, config["seed"]))
        if config["weight_decay"] == 0.5:
            raise RuntimeError("there is no more memory")
        rng = np.random.default_rng(config["seed"])
        ranks = rng.integers(-1, 12, 50).astype(np.int32)
        ranks[3] = 0 if row == "small" else 9
        order = rng.permutation(50)  # models may test in any order
        users = np.array([f"u{number}" for number in range(50)])
        places = {"with_history": ranks, "without_history": ranks - (ranks > 0)}
        tested = "other" if config["user_inter_num_interval"] == "[9,inf)" else "those"
        metrics = {f"{m}@{k}": 0.25 for k in (5, 10) for m in ("recall", "ndcg")}
        return {
            "model": config["model"], "dataset": config["dataset"],
            "test_result": metrics, "test_result_without_history": metrics,
            "test_buckets": {"6+": {"targets": 50, "recall@5": 0.25}},
            "test_targets": {"count": 50, "digest": tested, "tied": 0},
            "epochs_run": 2, "seconds_per_epoch": 0.1, "seconds_total": 0.5, "parameters": 12,
            "peak_memory_bytes": 2**30,
            "config": {key: config[key] for key in ("dataset", "data_path")},
            "test_ranks": {
                "user": order.astype(np.int32), "user_token": users[order],
                "item": np.zeros(50, np.int32), "item_token": np.full(50, "i1"),
                **{name: values[order] for name, values in places.items()},
            },
        }  # fmt: skip

    monkeypatch.setattr(run, "run_model", fake)

    def runs():
        done = asked.copy()
        asked.clear()
        return done

    return runs


ALL = [("tiny", row, seed) for seed in (1, 2) for row in ("other", "small")]


@pytest.mark.slow
def test_what_is_finished_is_not_run_again_and_what_is_new_is_run_alone(file, runs, tiny_folder):
    assert study(file(), workers=here)["done"] == 4 and runs() == ALL
    again = study(file(), workers=here)
    assert (again["done"], again["found"], runs()) == (0, 4, [])
    study(file(seeds=[2, 1, 3]), workers=here)
    assert runs() == [("tiny", "other", 3), ("tiny", "small", 3)]
    own = {"model": "SASRec", **CE}
    models = {"renamed": own, "small": {"model": "SASRec", "hidden_size": 8, **CE}, "GRU4Rec": CE}
    outcome = study(file(models=models, baseline="renamed"), workers=here)
    assert runs() == [("tiny", "other", 1), ("tiny", "other", 2)]  # GRU4Rec alone
    assert set(outcome["report"]["datasets"]["tiny"]["costs"]) == set(models)
    longer = {**SETTINGS, "data_path": str(tiny_folder), "epochs": 3}
    assert study(file(settings=longer), workers=here)["found"] == 0 and len(runs()) == 4
    elsewhere = {**SETTINGS, "data_path": os.path.relpath(tiny_folder), "show_progress": False}
    assert study(file(settings=elsewhere), workers=here)["found"] == 4 and runs() == []


def test_changed_data_are_never_answered_with_old_results(file, runs, tmp_path, tiny_folder):
    data = tmp_path / "data" / "tiny"
    data.mkdir(parents=True)
    for path in (tiny_folder / "tiny").iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    settings = {**SETTINGS, "data_path": str(data.parent)}
    study(file(settings=settings), workers=here)
    assert len(runs()) == 4
    text = (data / "tiny.item").read_text().replace("river", "hill")
    (data / "tiny.item").write_text(text)
    study(file(settings=settings), workers=here)
    assert len(runs()) == 4
    (data / "tiny.item").write_text(text.replace("hill", "river"))
    assert study(file(settings=settings), workers=here)["found"] == 4


def test_a_run_from_before_a_key_existed_is_found_where_the_key_has_its_default(
    file, runs, tiny_folder
):
    """Adding a key to the program makes no study be run again; giving it a value does."""

    def as_of_then(key, **others):
        for folder in Path("saved/studies/mine/tiny").iterdir():
            task = json.loads((folder / "task.json").read_text())
            task["inputs"]["settings"].pop(key)
            task["inputs"] |= others
            result = json.loads((folder / "result.json").read_text())
            task["key"] = result["key"] = "of then"
            (folder / "task.json").write_text(json.dumps(task))
            (folder / "result.json").write_text(json.dumps(result))
            folder.rename(folder.with_name(folder.name[:-16] + "0" * 16))

    one = {"models": {"SASRec": CE}, "seeds": [1]}
    assert study(file(**one), workers=here)["done"] == len(runs()) == 1
    as_of_then("n_layers")
    again = study(file(**one), workers=here)
    assert (again["found"], runs()) == (1, []) and "recall@10" in json.dumps(again["report"])
    settings = {**SETTINGS, "data_path": str(tiny_folder), "n_layers": 1}
    assert study(file(**one, settings=settings), workers=here)["done"] == len(runs()) == 1
    shutil.rmtree("saved")
    study(file(**one), workers=here)
    as_of_then("train_batch_size")  # which has no default of its own: the study gives it
    assert study(file(**one), workers=here)["done"] == 1 and len(runs()) == 2
    for changed in ({"version": 0}, {"files": {}}):
        shutil.rmtree("saved")
        study(file(**one), workers=here)
        as_of_then("n_layers", **changed)
        assert study(file(**one), workers=here)["done"] == 1 and len(runs()) == 2


def test_a_run_from_before_a_key_is_of_what_the_model_says_it_did_then():
    def is_one(value, key="evolve_accept"):
        then = {"evolve": "items"}
        inputs = {"version": 1, "files": {}, "settings": {**then, key: value}}
        cell = Cell("PIT", "PIT", "tiny", 1, {}, "key", inputs=inputs)
        return is_run_of({**inputs, "settings": then}, cell)

    assert PIT.settings_before == {"evolve_accept": "all"}
    assert is_one("all") and is_one(None)  # None where no item moves, whoever accepts
    assert not is_one("halves")
    assert is_one(0.1, "evolve_share") and not is_one(0.2, "evolve_share")


def test_a_models_own_version_of_results_makes_its_runs_others(file, monkeypatch):
    path = file(models={"IntRR": {}, "SASRec": CE}, seeds=[1])
    before = [cell.key for cell in read_study(path).cells()]
    monkeypatch.setattr(IntRR, "results_version", 9)
    after = [cell.key for cell in read_study(path).cells()]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_run_that_fails_is_a_line_of_the_report_and_tried_again(file, runs, capsys):
    models = {"SASRec": CE, "heavy": {"model": "SASRec", "weight_decay": 0.5, **CE}}
    for n_runs in (4, 2):
        outcome = study(file(models=models), workers=here)
        assert len(runs()) == n_runs
        assert list(outcome["failed"]) == ["heavy on tiny, seed 1", "heavy on tiny, seed 2"]
        assert "RuntimeError: there is no more memory" in outcome["table"]
        assert list(outcome["report"]["datasets"]["tiny"]["costs"]) == ["SASRec"]
    assert outcome["found"] == 2


def test_a_process_that_is_killed_is_a_failure_with_its_reason(file, runs):
    def killing(folders, jobs):
        yield from ((folder, -9) for folder in folders[:1])
        yield from here(folders[1:], jobs)

    (reason,) = study(file(), workers=killing)["failed"].values()
    assert "killed by signal 9, perhaps for want of memory" in reason


def test_pairs_by_user_what_models_tested_in_different_orders(file, runs):
    """All users but one have equal ranks: that one gains one hit of 50 in each seed."""
    found = study(file(), workers=here)["report"]["datasets"]["tiny"]["differences"]
    for protocol in ("with_history", "without_history"):
        difference = found[protocol]["small"]["recall@5"]
        assert difference["mean"] == pytest.approx(1 / 50)
        assert difference["low"] == pytest.approx(0) and difference["high"] == pytest.approx(3 / 50)
        assert difference["verdict"] == "not distinguishable at this power"


def test_the_files_of_a_report(file, runs, tiny_folder):
    outcome = study(file(), workers=here)
    page, rows = (Path(outcome["files"][kind]).read_text() for kind in ("md", "csv"))
    assert "0.2500 ± 0.0000" in page and "Minus SASRec, paired:" in page
    assert "not distinguishable at this power" in page and "6+" in page
    assert rows.count("\n") == 1 + 2 * 2 * 4
    assert Path(outcome["files"]["png"]).stat().st_size > 1000
    text = Path(outcome["files"]["json"]).read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))  # no NaN
    assert report["datasets"]["tiny"]["metrics"]["with_history"]["small"]["ndcg@10"]["mean"] == 0.25
    made_of = report["provenance"]
    bytes_of = (tiny_folder / "tiny" / "tiny.inter").read_bytes()
    assert made_of["data"]["tiny"]["tiny.inter"] == hashlib.sha256(bytes_of).hexdigest()
    (made_on,) = made_of["made_on"]
    assert made_of["runs"] == made_on["runs"] == 4 and made_on["versions"] == versions()
    assert f"4 with recbole_gr {versions()['recbole_gr']}" in page
    one = study(file(seeds=[1]), workers=here)
    assert "one seed does not tell" in one["table"] and "±" not in one["table"]
    alone = study(file(baseline=None), workers=here)
    assert "Minus" not in alone["table"]


def test_different_test_targets_are_refused(file, runs):
    other = {"model": "SASRec", "user_inter_num_interval": "[9,inf)", **CE}
    with pytest.raises(ConfigError, match="SASRec and other .* different targets"):
        study(file(models={"SASRec": CE, "other": other}), workers=here)


def test_a_study_that_another_process_is_at_is_refused(file, runs):
    with held(Path("saved/studies/mine"), "wait"), pytest.raises(ConfigError, match="in use"):
        study(file(), workers=here)
    assert runs() == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"models": {"SASRec": CE, "b": {"model": "SASRec", "hiden_size": 8}}}, "b on .*hiden"),
        ({"models": {"TIGER": {}, "b": {"model": "SASRec", "codebook_size": 8}},
          "baseline": "TIGER"}, "b on tiny: codebook_size: SASRec has no such key"),
        ({"models": {"SASRec": CE, "b": {"model": "SASRek"}}}, "row 'b': .*SASRec"),
        ({"settings": {"hiden_size": 8}}, "SASRec on tiny: .*hidden_size"),
        ({"settings": {"seed": 3}}, "seed is not set there; write it under seeds"),
        ({"seeds": [1, 1]}, "seeds: .*different"),
        ({"seeds": ["a"]}, "seeds"),
        ({"models": {"SASRec": CE, "b": {"fuse": ["SASRec", "SASRec"]}}}, "row 'b': .*three seeds"),
        ({"models": {"SASRec": CE, "K": {"model": "ContentKNN", "MAX_ITEM_LIST_LENGTH": 7},
                     "b": {"fuse": ["SASRec", "K"]}}}, "b on tiny: .*'K'.*MAX_ITEM_LIST_LENGTH=7"),
        ({"baseline": "SASRek"}, "no row is called 'SASRek'.*SASRec"),
        ({"basline": "SASRec"}, "Unknown key 'basline'.*baseline"),
        ({"tune": {"small": {"learning_rate": "loguniform -5,-8"}}}, "lower bound"),
        ({"tune": {"smal": {"learning_rate": "loguniform -8,-5"}}}, "tune: no row .*small"),
        ({"tune": {"small": {"hidden_size": "choice [8,16]"}}}, "fixed in the row"),
        ({"tune": {"small": {"n_layer": "choice [1,2]"}}}, "small on tiny: .*n_layers"),
        ({"models": {"DACT": {}, "SASRec": CE}}, "over periods cannot stand beside others"),
        ({"models": []}, "models: write rows"),
        ({"models": {"TIGER": {"sid_file": "no.json"}}, "baseline": None},
          "TIGER on tiny: sid_file: there is no file 'no.json'"),
        ({"name": "../a"}, "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_used_is_said_before_anything_is_run(file, runs, changes, message):
    with pytest.raises(ConfigError, match=message):
        study(file(**changes), workers=here)
    assert runs() == []


def test_a_study_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="There is no study 'nothing.yaml'"):
        study("nothing.yaml", workers=here)


def test_a_row_has_the_settings_of_its_files_but_for_its_own(file, runs, tmp_path):
    (tmp_path / "small.yaml").write_text("model: TIGER\nhidden_size: 8\nn_layers: 1\n")
    row = {"model": "SASRec", "config_files": "small.yaml", "n_layers": 2, **CE}
    (cell, _) = read_study(file(models={"row": row}, baseline=None)).cells()
    assert (cell.settings["hidden_size"], cell.settings["n_layers"]) == (8, 2)
    assert cell.model == "SASRec" and "config_files" not in cell.settings


def test_the_short_form_and_spaces_to_tune(file):
    found = read_study(
        file(models=["SASRec", "GRU4Rec"], tune={"SASRec": {"n_layers": "choice [1,2]"}})
    )
    assert found.rows == {"SASRec": {"model": "SASRec"}, "GRU4Rec": {"model": "GRU4Rec"}}
    assert found.name == "mine" and found.tune == {"SASRec": {"n_layers": "choice [1,2]"}}


def figures(outcome):
    return {
        name: outcome["report"]["datasets"]["tiny"][name] for name in ("metrics", "differences")
    }


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_equal_results(file, monkeypatch):
    whole = study(file(name="whole"), workers=here)
    for cell in read_study(file(name="whole")).cells():
        kept = finished(Path("saved/studies/whole", cell.folder), cell)
        for name in ("recall@5", "ndcg@10") if kept.ranks else ():  # of one target a user
            mean = metric_of(kept.ranks["with_history"], name).mean()
            assert mean == pytest.approx(kept.result["test_result"][name], abs=6e-5)
    train, epochs = Trainer._train_epoch, []

    def killed(trainer, data, epoch, *args, **kwargs):
        epochs.append(epoch)
        if len(epochs) == 4:  # the second run, in its second epoch
            raise SystemExit("killed")
        return train(trainer, data, epoch, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_train_epoch", killed)
    with pytest.raises(SystemExit, match="killed"):
        study(file(name="cut"), workers=here)
    epochs.clear()
    monkeypatch.setattr(Trainer, "_train_epoch", killed)
    epochs.extend([None] * 4)
    cut = study(file(name="cut"), workers=here)
    assert epochs[4:] == [1, 0, 1, 0, 1]  # from the first epoch's checkpoint on
    assert (cut["found"], cut["done"]) == (1, 3) and not cut["failed"]
    assert figures(cut) == figures(whole)


@pytest.mark.slow
def test_two_at_a_time_in_processes_are_one_after_another_here(file, capsys, monkeypatch):
    alone = study(file(name="alone"), workers=here)
    path = str(file(name="two"))
    capsys.readouterr()
    assert main([path, "--jobs=2"]) == 0
    told = capsys.readouterr()
    assert "Report: saved/studies/two/report.md" in told.out
    with open("saved/studies/two/report.json") as text:
        two = json.load(text)
    assert figures({"report": two}) == json.loads(json.dumps(figures(alone)))
    for folder in Path("saved/studies/two/tiny").iterdir():
        kept = {path.name for path in folder.iterdir()}
        assert {"manifest.json", "model.pth", "result.json", "run.log"} <= kept


SCRIPT = """\
#!{python}
import os, signal, sys
folder = sys.argv[3]
with open(folder + "/gpus", "w") as file:
    file.write(" ".join(sys.argv[4:]))
if folder.endswith("first"):
    sys.exit(3)

def stopped(*_):
    open(folder + "/stopped", "w").close()
    os._exit(143)

signal.signal(signal.SIGTERM, stopped)
open(folder + "/begun", "w").close()  # a pipe: the test waits there
signal.pause()
"""


def test_processes_are_told_to_stop_and_waited_for(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(SCRIPT.format(python=sys.executable))
    program.chmod(0o755)
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
        os.mkfifo(folder / "begun")
    monkeypatch.setattr(workers.sys, "executable", str(program))
    monkeypatch.setattr(workers, "_gpus", lambda: ["4", "7"])
    ended = in_processes(folders, 2)
    assert next(ended) == (folders[0], 3)
    for folder in folders[1:]:
        open(folder / "begun").close()
    ended.close()
    assert [(folder / "stopped").exists() for folder in folders] == [False, True, True]
    # The third has that of the first, which is free again.
    used = [(folder / "gpus").read_text() for folder in folders]
    assert sorted(used[:2]) == ["4", "7"] and used[2] == used[0]


def test_published_runs_are_found_on_another_machine_and_hold_no_data(file, runs, tiny_folder):
    first = study(file(), workers=here, publish=True)
    assert runs() == ALL
    shutil.rmtree("saved")
    again = study(file(), workers=here)
    assert (again["done"], again["found"], runs()) == (0, 4, [])
    found, expected = (each["report"]["datasets"]["tiny"] for each in (again, first))
    for part in ("metrics", "differences", "buckets"):
        assert found[part] == expected[part] and found[part]
    # A row of one's own is compared with them, target by target.
    models = {"SASRec": CE, "mine": {"model": "SASRec", "weight_decay": 0.1, **CE}}
    mine = study(file(models=models), workers=here)
    assert (mine["done"], mine["found"], len(runs())) == (2, 2, 2)
    report = mine["report"]["datasets"]["tiny"]["differences"]["with_history"]["mine"]
    assert report["recall@10"]["mean"] == 0.0  # its ranks are drawn as those of SASRec
    for path in Path("runs").rglob("*.*"):
        assert str(tiny_folder).encode() not in path.read_bytes() and path.suffix != ".pth"
    arrays = [np.load(path) for path in Path("runs").rglob("*.npz")]
    assert len(arrays) == 4 and not any("user" in each or "item" in each for each in arrays)
    assert {"report.md", "report.csv", "report.json", "report.png"} <= {*os.listdir()}
    shown = json.loads(Path("report.json").read_text())
    assert "command" not in shown and shown["datasets"]["tiny"]["trained"] == {}
    assert shown["datasets"]["tiny"]["metrics"] == first["report"]["datasets"]["tiny"]["metrics"]
    # What was not found before is published beside it, and other settings are not answered by them.
    study(file(models=models), workers=here, publish=True)
    assert len([*Path("runs").rglob("result.json")]) == 6 and runs() == []
    other = {"settings": {**SETTINGS, "data_path": str(tiny_folder), "epochs": 3}}
    assert study(file(**other), workers=here)["done"] == 4


def test_published_runs_of_other_targets_are_refused(file, runs):
    study(file(models={"SASRec": CE}), workers=here, publish=True)
    shutil.rmtree("saved")
    few = {"model": "SASRec", "user_inter_num_interval": "[9,inf)", **CE}
    with pytest.raises(ConfigError, match="few .*were tested on different targets"):
        study(file(models={"SASRec": CE, "few": few}), workers=here)


def test_published_fusions_are_found_without_checkpoints(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {
        "models": {
            "SASRec": {}, "GRU4Rec": {}, "both": {"fuse": ["SASRec", "GRU4Rec"]},
            "nested": {"fuse": ["both", "SASRec"]},
        },
        "datasets": "tiny", "seeds": [1], "settings": {
            **SETTINGS, "epochs": 1, "data_path": str(tiny_folder), "fusion_steps": 2,
        },
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    first = study(path, workers=here, publish=True)
    assert (first["done"], first["failed"]) == (4, {})
    shutil.rmtree("saved")
    again = study(path, workers=here)
    assert (again["done"], again["found"], again["failed"]) == (0, 4, {})
    assert again["table"] == first["table"]
    assert [cell.row for cell in finished_runs(read_study(path), path)] == [*content["models"]]
    # Another fusion needs the weights of its members, which are not published.
    content["models"]["both"]["fusion_steps"] = 3
    del content["models"]["nested"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (reason,) = study(path, workers=here)["failed"].values()
    assert "no checkpoint 'runs/tiny/SASRec" in reason.replace(str(tmp_path) + "/", "")
    assert "its run is done again" in reason


def script_of_pairs():
    """`studies/pairs.py` as a module."""
    spec = importlib.util.spec_from_file_location("pairs", ROOT / "studies" / "pairs.py")
    pairs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pairs)
    return pairs


def test_two_rows_of_a_study_are_compared_with_each_other(file, runs, capsys):
    pairs, path = script_of_pairs(), file()
    expected = study(path, workers=here, publish=True)["report"]["datasets"]["tiny"]["differences"]
    shutil.rmtree("saved")
    pairs.main(str(path), "small", "SASRec")
    line = next(x for x in capsys.readouterr().out.splitlines() if "without_history" in x)
    first = expected["without_history"]["small"]
    metric = line.split("|")[3].strip()
    assert f"{first[metric]['mean']:+.4f}" in line and first[metric]["verdict"] in line
    with pytest.raises(ConfigError, match="no row of .*mine.yaml is called 'large'"):
        pairs.compared(path, "large", "SASRec")
    shutil.rmtree("runs")
    with pytest.raises(ConfigError, match="small has no finished run on tiny"):
        pairs.compared(path, "small", "SASRec")


def test_where_runs_cannot_be_published_is_said_before_one_is_done(file, runs):
    Path("runs").write_text("mine")
    with pytest.raises(ConfigError, match="'runs' is a file, not a folder.*leave --publish out"):
        study(os.path.relpath(file()), workers=here, publish=True)
    assert runs() == [] and Path("runs").read_text() == "mine"


DECODED = {
    "sum": {"model": "IntRR", "item_head": 0.5, "beam_size": 30, "tokenizer": "RKMeans"},
    "SIDs alone": {"weights_of": "sum", "item_head_score": 0.0},
    "as it is": {"weights_of": "sum"},
}


def decoded(tiny_folder, **changes):
    small = dict(hidden_size=16, n_layers=1, n_heads=2, head_size=8, codebook_size=8)
    settings = {**SETTINGS, **small, "epochs": 1, "data_path": str(tiny_folder)}
    content = {"models": DECODED, "datasets": "tiny", "seeds": [1, 2], "settings": settings}
    return {**content, **changes}


def test_rows_are_compared_where_both_are(tiny_folder, tmp_path, file, runs):
    pairs, data = script_of_pairs(), tmp_path / "data"
    for name in ("tiny", "other"):
        shutil.copytree(tiny_folder / "tiny", data / name)
    for part in (data / "other").glob("tiny.*"):
        part.rename(part.with_name(part.name.replace("tiny", "other")))
    small = {"model": "SASRec", "hidden_size": 8, **CE}
    models = {"SASRec": CE, "here": {**small, "datasets": ["tiny"]}}
    both = {"datasets": ["tiny", "other"], "settings": {**SETTINGS, "data_path": str(data)}}
    path = file(models=models, **both, seeds=[1])
    whole = study(path, workers=here)
    assert (whole["done"], whole["failed"]) == (3, {})
    assert list(pairs.compared(path, "here", "SASRec")) == ["tiny"]
    models["SASRec"] = {**CE, "datasets": ["other"]}
    path = file(models=models, **both, seeds=[1])
    with pytest.raises(ConfigError, match="here and SASRec have no data set in common"):
        pairs.compared(path, "here", "SASRec")


@pytest.mark.slow
def test_weights_are_tested_under_other_settings_of_decoding(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(decoded(tiny_folder), sort_keys=False))
    outcome = study(path, workers=here, publish=True)
    assert (outcome["done"], outcome["failed"]) == (6, {})
    results = {}
    for file in Path("saved/studies/mine/tiny").glob("*/result.json"):
        task = json.loads(file.with_name("task.json").read_text())
        row = "sum" if "weights" not in task else "SIDs alone"
        if "weights" in task and task["settings"].get("item_head_score") is None:
            row = "as it is"
        results[row, task["settings"]["seed"]] = json.loads(file.read_text())
    for seed in (1, 2):
        trained, same = results["sum", seed], results["as it is", seed]
        for part in ("test_result", "test_result_without_history", "best_valid_result"):
            assert same[part] == trained[part], part
        assert (same["epochs_run"], same["seconds_per_epoch"]) == (0, None)
        # The other ranking is that of the same weights, asked another way.
        alone = results["SIDs alone", seed]
        how = {"data_path": str(tiny_folder), "item_head_score": 0.0}
        config, model, _, _, _, test = load_data_and_model(trained["checkpoint"], **how)
        expected = get_trainer(config, type(model))(config, model).evaluate(
            test, load_best_model=False
        )
        assert alone["test_result"] == pytest.approx(expected)
        assert alone["sid_digest"] == trained["sid_digest"]
    # Nothing is done twice, here or where the runs were published; no place is told of.
    assert study(path, workers=here)["done"] == 0
    assert str(tmp_path) not in "".join(f.read_text() for f in Path("runs").rglob("task.json"))
    shutil.rmtree("saved")
    assert (study(path, workers=here)["done"], study(path, workers=here)["found"]) == (0, 6)
    other = {**DECODED, "as it is": {"weights_of": "sum", "beam_size": 20}}
    path.write_text(yaml.safe_dump(decoded(tiny_folder, models=other), sort_keys=False))
    reasons = study(path, workers=here)["failed"]
    assert len(reasons) == 2 and all(
        "no checkpoint" in r and "to test" in r for r in reasons.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PIT", "SASRec"])
def test_weights_tested_as_they_are_give_what_their_training_gave(
    model, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pit = {"warmup_epochs": 1, "n_i2t_layers": 1, "csa_negatives": 1, "tokenizer": "RKMeans"}
    pit |= {"evolve": "pairs", "select": "min"}  # so that items have several SIDs soon
    models = {
        "row": {"model": model, "epochs": 3, **(pit if model == "PIT" else {})},
        "again": {"weights_of": "row"},
    }
    path = tmp_path / "mine.yaml"
    settings = {**SETTINGS, "data_path": str(tiny_folder)}
    if model == "PIT":
        settings = decoded(tiny_folder)["settings"]
    study_of = decoded(tiny_folder, models=models, seeds=[1], settings=settings)
    path.write_text(yaml.safe_dump(study_of))
    report = study(path, workers=here)["report"]["datasets"]["tiny"]
    again, trained = read_rows(report, "again"), read_rows(report, "row")
    assert again == trained and len(trained) >= 2
    pair = script_of_pairs().compared(str(path), "again", "row")["tiny"].differences
    assert pair["with_history"]["again"]["recall@10"].mean == 0
    if model == "PIT":  # other SIDs than the heaviest have a part in the ranking
        models["one SID"] = {"weights_of": "row", "ablate": "index"}
        path.write_text(yaml.safe_dump(study_of))
        outcome = study(path, workers=here)
        assert (outcome["done"], outcome["failed"]) == (1, {})
        (file,) = Path("saved/studies/mine/tiny").glob("*/model.pth")
        how = {"data_path": str(tiny_folder), "ablate": ["index"]}
        config, network, _, _, _, test = load_data_and_model(file, **how)
        assert network.only_heaviest
        expected = get_trainer(config, type(network))(config, network).evaluate(
            test, load_best_model=False
        )
        found = read_rows(outcome["report"]["datasets"]["tiny"], "one SID")
        for metric, value in expected.items():
            assert found["with_history", metric] == [pytest.approx(value)]
        assert found != trained


def read_rows(report, row):
    """The metrics of a row by ranking and seed."""
    return {
        (ranking, metric): figures["seeds"]
        for ranking, rows in report["metrics"].items()
        for metric, figures in rows[row].items()
    }


@pytest.mark.parametrize(
    "row, message",
    [
        ({"weights_of": "sun"}, "weights_of: 'sun' is no row that is trained.*did you mean 'sum'"),
        ({"weights_of": "SIDs alone"}, "'SIDs alone' is no row that is trained"),
        ({"weights_of": "sum", "dropout": 0.1}, "dropout cannot be changed for weights that are"),
        ({"weights_of": "sum", "ablate": "csa"}, "ablate cannot be changed for weights"),
        ({"weights_of": "sum", "model": "TIGER"}, "the model is that of the row it names"),
        ({"weights_of": "sum", "merge": "max"}, "Unknown key 'merge'"),
        ({"weights_of": "sum", "fuse": ["sum", "sum"]}, "the model is that of the row it names"),
    ],
)
def test_what_cannot_be_tested_so_is_refused(tiny_folder, tmp_path, row, message):
    path = tmp_path / "mine.yaml"
    models = {**DECODED, "as it is": row}
    path.write_text(yaml.safe_dump(decoded(tiny_folder, models=models), sort_keys=False))
    with pytest.raises(ConfigError, match=f"(?i)row 'as it is'.*{message}|as it is.*{message}"):
        read_study(path).cells()


def test_weights_of_a_run_over_periods_are_not_tested_again(tmp_path):
    path = tmp_path / "mine.yaml"
    models = {"over": {"model": "DACT"}, "wide": {"weights_of": "over", "beam_size": 50}}
    path.write_text(yaml.safe_dump({"models": models, "datasets": "tiny", "seeds": [1]}))
    with pytest.raises(ConfigError, match="weights_of tests the weights of one training, not"):
        read_study(path)


def test_weights_of_a_tuned_row_are_tested_with_what_was_chosen(tiny_folder, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(decoded(tiny_folder), sort_keys=False))
    plan = read_study(path)
    kept = {("sum", "tiny", 1): ("a key", tmp_path / "model.pth")}
    cells = plan.tests(kept, {("sum", "tiny"): {"dropout": 0.4, "item_head_score": 0.7}})
    alone, same = cells  # of the one seed whose run is kept
    assert (alone.settings["item_head_score"], same.settings["item_head_score"]) == (0.0, 0.7)
    assert {cell.settings["dropout"] for cell in cells} == {0.4}
    assert alone.key != same.key and alone.inputs["files"]["weights"] == "a key"
    other = plan.tests({("sum", "tiny", 1): ("another", tmp_path / "model.pth")})
    assert alone.key != other[0].key and [cell.weights for cell in other][0].endswith("model.pth")
    assert [*plan.trained] == ["sum"] and {cell.row for cell in plan.cells()} == {"sum"}


def test_a_row_is_not_fused_with_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    models = {"SASRec": {}, "twice": {"fuse": ["SASRec", "SASRec"]}}
    path.write_text(yaml.safe_dump({"models": models, "datasets": "tiny", "seeds": [1]}))
    with pytest.raises(ConfigError, match="row 'twice'.*give three seeds or more"):
        read_study(path)
