"""Tuning of a study: as many trials for every row, and a choice by the validation targets alone."""

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from runs import here

from recbole_gr.errors import ConfigError
from recbole_gr.run import model as run
from recbole_gr.study.command import ARGUMENTS
from recbole_gr.study.plan import Cell
from recbole_gr.study.runner import study
from recbole_gr.study.store import Finished
from recbole_gr.study.tuning import Trials

SPACE = {"learning_rate": "loguniform -8,-4"}
ROWS = {"SASRec": {}, "GRU": {"model": "GRU4Rec"}}


@pytest.fixture
def tune(tiny_folder, tmp_path, monkeypatch):
    """A function that tunes a study of two rows; what is given changes its file."""
    monkeypatch.chdir(tmp_path)

    def tune(n, workers=here, **changes):
        settings = {"data_path": str(tiny_folder), "epochs": 1, "MAX_ITEM_LIST_LENGTH": 5}
        content = {
            "models": ROWS, "datasets": ["tiny"], "seeds": [1, 2], "settings": settings,
            "tune": {"SASRec": SPACE, "GRU": SPACE}, **changes,
        }  # fmt: skip
        Path("mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return study("mine.yaml", workers=workers, tune=n)

    return tune


@pytest.fixture
def asked(monkeypatch):
    """Model, learning rate and seed of the runs that are asked for. They train nothing: the lower
    the rate, the better the validation score and the worse the test. GRU4Rec prefers high ones, and
    has no memory for the rates of `asked.refused`."""

    class Asked(list):
        refused = ()

    asked = Asked()

    def fake(config, start):
        model, rate = config["model"], config["learning_rate"]
        asked.append((model, rate, config["seed"]))
        if model == "GRU4Rec" and rate in asked.refused:
            raise RuntimeError("there is no more memory")
        score = math.log(rate) * (1 if model == "GRU4Rec" else -1) / 100
        return {
            "model": model, "dataset": config["dataset"], "best_valid_score": score,
            "test_result": {"recall@10": 1 - score}, "test_result_without_history": None,
            "test_buckets": None, "test_targets": None, "test_ranks": None, "epochs_run": 1,
            "seconds_per_epoch": 0.1, "seconds_total": 0.5, "parameters": 12,
            "peak_memory_bytes": None,
            "config": {"dataset": "tiny", "data_path": "tiny"},
        }  # fmt: skip

    monkeypatch.setattr(run, "run_model", fake)
    return asked


def rates(asked, model):
    return [rate for name, rate, seed in asked if name == model and seed == 1]


def chosen():
    with open("saved/studies/mine/chosen.json") as file:
        return json.load(file)


def test_each_row_has_as_many_trials_and_the_settings_of_its_best(tune, asked):
    outcome = tune(4)
    tried = {model: rates(asked, model) for model in ("SASRec", "GRU4Rec")}
    assert all(len(set(each)) == len(each) == 4 for each in tried.values())
    assert tried["SASRec"] == tried["GRU4Rec"]  # drawn by the same seed
    assert all(math.exp(-8) <= rate <= math.exp(-4) for rate in tried["SASRec"])
    best = {"SASRec": min(tried["SASRec"]), "GRU4Rec": max(tried["GRU4Rec"])}  # the worst tests
    # The trial is the run of the first seed.
    assert asked[8:] == [("SASRec", best["SASRec"], 2), ("GRU4Rec", best["GRU4Rec"], 2)]
    assert (outcome["done"], outcome["found"], outcome["failed"]) == (10, 0, {})
    file = chosen()
    assert file["trials"] == 4 and outcome["files"]["chosen"] == "saved/studies/mine/chosen.json"
    for row, model in (("SASRec", "SASRec"), ("GRU", "GRU4Rec")):
        found = file["datasets"]["tiny"][row]
        assert found == outcome["report"]["datasets"]["tiny"]["tuning"][row]
        assert found["chosen"] == {"learning_rate": best[model]} and found["metric"] == "NDCG@10"
        assert [trial["params"]["learning_rate"] for trial in found["trials"]] == tried[model]
        scores = [trial["score"] for trial in found["trials"]]
        assert found["score"] == max(scores) == scores[found["trial"]]
        means = outcome["report"]["datasets"]["tiny"]["metrics"]["with_history"][row]["recall@10"]
        assert means["seeds"] == [pytest.approx(1 - found["score"])] * 2
        folder = Path("saved/studies/mine", found["trials"][0]["folder"])
        assert json.loads((folder / "task.json").read_text())["settings"]["seed"] == 1
    assert "test" not in json.dumps(file) and "learning_rate=" in outcome["table"]


@pytest.mark.slow
def test_more_trials_go_on_from_those_that_exist(tune, asked):
    tune(2)
    before = [rates(asked, model) for model in ("SASRec", "GRU4Rec")]
    asked.clear()
    assert tune(2)["done"] == 0 and asked == []
    outcome = tune(5)
    after = [rates(asked, model) for model in ("SASRec", "GRU4Rec")]
    assert [len(each) for each in after] == [3, 3]
    assert not set(before[0]) & set(after[0])
    new = [run for run in asked if run[2] == 2]  # only where another setting is better now
    expected = [("SASRec", min(before[0] + after[0]), 2), ("GRU4Rec", max(before[1] + after[1]), 2)]
    assert new == [run for run in expected if run[1] in after[0]]
    assert outcome["found"] == 2 * 2 + 2 - len(new)
    trials = chosen()["datasets"]["tiny"]["SASRec"]["trials"]
    assert [t["params"]["learning_rate"] for t in trials] == before[0] + after[0]
    asked.clear()
    assert tune(5, seeds=[1, 2, 3])["done"] == 2 and {seed for *_, seed in asked} == {3}


def test_a_tuning_that_was_stopped_goes_on(tune, asked):
    def stopping(folders, jobs):
        yield from here(folders[:3], jobs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(4, workers=stopping)
    first = asked.copy()
    asked.clear()
    outcome = tune(4)
    assert len(first) == 3 and not set(first) & set(asked)
    assert (outcome["found"], outcome["done"]) == (3, 7)


def test_a_trial_that_fails_is_one_of_them_and_loses(tune, asked):
    tune(3)
    best = max(rates(asked, "GRU4Rec"))
    asked.refused = [best]
    rest = [rate for rate in rates(asked, "GRU4Rec") if rate != best]
    outcome = tune(3, seeds=[1], name="again")
    found = outcome["report"]["datasets"]["tiny"]["tuning"]["GRU"]
    assert found["chosen"] == {"learning_rate": max(rest)} and len(found["trials"]) == 3
    assert [t["message"] for t in found["trials"] if t["score"] is None] == [
        "RuntimeError: there is no more memory"
    ]
    assert outcome["failed"] == {}
    asked.refused = [best, *rest]
    outcome = tune(3, seeds=[1], name="never")
    assert list(outcome["failed"]) == ["GRU on tiny"]
    assert "no trial finished; the first: RuntimeError" in outcome["failed"]["GRU on tiny"]
    assert list(outcome["report"]["datasets"]["tiny"]["costs"]) == ["SASRec"]


def test_nothing_but_the_validation_score_is_read_and_the_first_of_equals_is_best():
    class OnlyValidation(dict):
        def __getitem__(self, key):
            assert key == "best_valid_score"
            return super().__getitem__(key)

    def number(scores, bigger):
        cells = [Cell("row", "SASRec", "tiny", 1, {}, str(n), n) for n in range(len(scores))]
        results = {
            cell: Finished(OnlyValidation(best_valid_score=score), None, cell.folder)
            for cell, score in zip(cells, scores)
        }
        return Trials([{}] * len(cells), cells, "NDCG@10", bigger).best(results)

    assert number([0.1, 0.3, 0.3, None], True) == 1
    assert number([0.2, 0.1, None, 0.1], False) == 1
    assert number([-2.0, -1.0], True) == 1 and number([0.0], True) == 0
    assert number([None], True) is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tune": {"SASRec": SPACE}}, "--tune=3: row 'GRU' has no space"),
        ({"tune": {"SASRec": SPACE, "GRU": {"num_layers": "choice [1,2]"}}}, "'GRU' holds 2 sett"),
        ({"tune": {"SASRec": SPACE, "GRU": {"valid_metric": "choice [MRR@5]"}}}, "same for all"),
        ({"tune": {"SASRec": SPACE, "GRU": {"seed": "choice [1,2,3]"}}}, "same for all"),
        ({"tune": {"SASRec": SPACE, "GRU": {"n_heads": "choice [1,2,4]"}}}, "GRU on tiny"),
    ],
)
def test_spaces_that_cannot_be_used_are_named_before_anything_is_run(tune, asked, changes, message):
    with pytest.raises(ConfigError, match=message):
        tune(3, **changes)
    assert asked == []


def test_other_data_sets_take_the_settings_of_the_one_tuned_on(
    tune, asked, tiny_folder, tmp_path
):
    for name in ("tiny", "other"):
        shutil.copytree(tiny_folder / "tiny", tmp_path / "data" / name)
    for path in (tmp_path / "data" / "other").iterdir():
        path.rename(path.with_name(path.name.replace("tiny", "other")))
    settings = {"data_path": str(tmp_path / "data"), "epochs": 1, "MAX_ITEM_LIST_LENGTH": 5}
    outcome = tune(3, datasets=["other", "tiny"], tune_on="tiny", settings=settings)
    assert outcome["done"] == 2 * (3 + 1) + 2 * 2  # two rows: trials and a seed; two seeds
    for row, model in (("SASRec", "SASRec"), ("GRU", "GRU4Rec")):
        best = chosen()["datasets"]["tiny"][row]["chosen"]["learning_rate"]
        assert asked.count((model, best, 1)) == asked.count((model, best, 2)) == 2
    assert list(chosen()["datasets"]) == ["tiny"]
    assert "Settings as chosen on tiny." in outcome["table"].split("## tiny")[0]
    # A row of one data set alone is tuned there, and runs nowhere else.
    asked.clear()
    some = {**ROWS, "GRU": {"model": "GRU4Rec", "datasets": ["tiny"], "hidden_size": 8}}
    outcome = tune(3, models=some, datasets=["other", "tiny"], tune_on="tiny", settings=settings)
    assert len(asked) == outcome["done"] == 3 + 1 and {each[0] for each in asked} == {"GRU4Rec"}
    other, tiny = outcome["table"].split("## tiny")
    assert "GRU" not in other.split("Settings as")[0] and "GRU" in tiny
    for wrong, message in (
        ({"tune_on": ["tin"]}, "tune_on: tin is not .*tiny"),
        ({"models": some, "datasets": ["other", "tiny"], "tune_on": "other"}, "'GRU' runs on tiny"),
        ({"models": {**ROWS, "GRU": {"datasets": "tin"}}}, "row 'GRU': tin is not .*did you mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            tune(3, **{"settings": settings, **wrong})


def test_a_row_with_nothing_to_tune_says_so(tune, asked):
    outcome = tune(2, models={**ROWS, "Pop": {}}, tune={"SASRec": SPACE, "GRU": SPACE, "Pop": {}})
    assert [(model, seed) for model, _, seed in asked if model == "Pop"] == [("Pop", 1), ("Pop", 2)]
    found = outcome["report"]["datasets"]["tiny"]["tuning"]["Pop"]
    assert found["chosen"] == {} and found["trials"] == []


def test_the_argument():
    own, rest = ARGUMENTS.read(["mine.yaml", "--tune=8", "--epochs=3"])
    assert (own["tune"], rest) == (8, ["--epochs=3"])
    assert "tune" not in ARGUMENTS.read(["mine.yaml"])[0]
    with pytest.raises(ConfigError, match="tune"):
        ARGUMENTS.read(["mine.yaml", "--tune=0"])


def test_models_that_train_have_the_validation_scores_of_their_trials(tune):
    outcome = tune(2, models={"SASRec": {}}, tune={"SASRec": {"hidden_size": "choice [8,64]"}})
    found = outcome["report"]["datasets"]["tiny"]["tuning"]["SASRec"]
    kept = [
        json.loads(Path("saved/studies/mine", trial["folder"], "result.json").read_text())
        for trial in found["trials"]
    ]
    scores = [each["best_valid_result"]["ndcg@10"] for each in kept]
    assert found["score"] == max(scores) and outcome["done"] == 3
    assert found["chosen"] == found["trials"][scores.index(max(scores))]["params"]
