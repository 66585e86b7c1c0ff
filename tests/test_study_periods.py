"""Studies of runs over periods: ranks of every method, targets apart, popularity, disruption."""

import json
from pathlib import Path

import numpy as np
import pytest
from runs import SMALL
from tiny import write_tiny_dataset

from recbole_gr.continual.disruption import disruption, plot_disruption, write_disruption
from recbole_gr.data.frequency import popularity
from recbole_gr.errors import ConfigError
from recbole_gr.report.ranks import write_rank_file
from recbole_gr.study.periods import POPULARITY, by_period
from recbole_gr.study.plan import Cell, Study
from recbole_gr.study.runner import study
from recbole_gr.study.store import Finished
from recbole_gr.study.study_file import read_study


def test_popularity_is_the_place_among_the_items_that_train():
    assert popularity(np.array([0, 2, 0, 5, 2])).tolist() == [-1, 1, -1, 0, 2]


def kept(folder, users, ranks, popular, periods=(1, 2)):
    """A run over periods with two methods: the ranks of the second are those of the first + 1."""
    found = []
    for period in periods:
        for number, method in enumerate(("kept/finetune", "dact/finetune")):
            file = folder / f"{period}-{number}.npz"
            names = np.array([f"u{user}" for user in users[period]])
            write_rank_file(
                file,
                {
                    "user": np.arange(len(names)), "item": np.arange(len(names)),
                    "user_token": names, "item_token": np.array([f"i{period}"] * len(names)),
                    "with_history": np.array(ranks[period]) + number,
                    "popularity": np.array(popular[period]),
                },
            )  # fmt: skip
            found.append(
                {
                    "period": period, "method": method, "ranks": file.name, "epochs_run": 2,
                    "test_result": {"recall@1": 0.0, "ndcg@2": 0.0, "mrr@2": 0.0},
                    "seconds_per_epoch": 1.0, "total_seconds": 3.0, "tokenizer_seconds": None,
                    "parameters": 7, "peak_memory_bytes": None,
                }
            )  # fmt: skip
    return Finished({"periods": found}, None, folder)


def test_periods_stand_together_and_apart_with_their_targets_apart(tmp_path):
    """Users a and b are tested in period 1, b and c in period 2; an item of each trains."""
    users = {1: "ab", 2: "bc"}
    run = kept(tmp_path, users, {1: [0, 0], 2: [1, 0]}, {1: [0, -1], 2: [1, -1]})
    plan = Study(
        "s", {"T": {"model": "DACT"}}, ["d"], [1], {}, "kept/finetune", {}, over_periods=True
    )
    cell = Cell("T", "DACT", "d", 1, {}, "key")
    seen, found = by_period(plan, {cell: run})
    assert list(seen.rows) == ["kept/finetune", "dact/finetune", POPULARITY]
    assert seen.datasets == [
        "d, T, periods 1 to 2", "d, T, periods 1 to 2, targets that train there",
        "d, T, periods 1 to 2, targets that do not train there", "d, T, period 1", "d, T, period 2",
    ]  # fmt: skip
    recall = {(c.row, c.dataset[6:]): k.result["test_result"]["recall@1"] for c, k in found.items()}
    assert recall["kept/finetune", "periods 1 to 2"] == 3 / 4
    assert recall["dact/finetune", "periods 1 to 2"] == 0
    assert recall["kept/finetune", "periods 1 to 2, targets that train there"] == 1 / 2
    assert recall["kept/finetune", "periods 1 to 2, targets that do not train there"] == 1
    assert recall[POPULARITY, "periods 1 to 2"] == 1 / 4
    assert recall[POPULARITY, "periods 1 to 2, targets that do not train there"] == 0
    assert recall[POPULARITY, "period 2"] == 0
    together = found[Cell("dact/finetune", "DACT", "d, T, periods 1 to 2", 1, {},
                          "keyd, T, periods 1 to 2")]  # fmt: skip
    assert together.ranks["user"].tolist() == ["ua", "ub", "ub", "uc"]
    assert together.result["epochs_run"] == 4 and together.result["test_targets"]["count"] == 4
    with pytest.raises(ConfigError, match="baseline: no method of T on d.*'keept/finetune'"):
        by_period(Study(**{**plan.__dict__, "baseline": "keept/finetune"}), {cell: run})


def stays(tokenizer, period, value, changed, recommender="frozen"):
    return {
        "model": "TIGER", "tokenizer": tokenizer, "period": period, "recommender": recommender,
        "test_result": {"recall@10": 1.0, "ndcg@10": value}, "churn": {"since_start": changed},
    }  # fmt: skip


def test_disruption_is_of_recommenders_that_stay_and_a_mean_over_seeds(tmp_path):
    results = [
        stays("kept", 1, 0.2, 0.0), stays("kept", 1, 0.4, 0.0), stays("finetune", 1, 0.1, 0.9),
        stays("finetune", 1, 0.3, 0.7), stays("kept", 2, 0.2, 0.0), stays("kept", 0, 9.0, 0.0),
        stays("finetune", 1, 9.0, 0.5, "finetune"),
    ]  # fmt: skip
    points = disruption(results)
    named = {(p["tokenizer"], p["period"]): (p["runs"], p["value"], p["changed"]) for p in points}
    assert named == {
        ("kept", 1): (2, pytest.approx(0.3), 0), ("kept", 2): (1, 0.2, 0),
        ("finetune", 1): (2, pytest.approx(0.2), pytest.approx(0.8)),
    }  # fmt: skip
    over_time, by_churn = plot_disruption(points).axes
    assert over_time.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.2])
    assert by_churn.lines[1].get_xdata().tolist() == pytest.approx([0.8])
    files = write_disruption(results, tmp_path)
    assert Path(files["disruption"]).is_file()
    assert "0.8" in Path(files["disruption csv"]).read_text()
    assert write_disruption(results[:2], tmp_path) == {}


def test_a_study_is_of_runs_over_periods_or_of_others(tmp_path):
    file = tmp_path / "mixed.yaml"
    start = "datasets: tiny\nseeds: [1]\nmodels: {DACT: {}"
    file.write_text(start + ", SASRec: {}}\n")
    with pytest.raises(ConfigError, match="rows over periods cannot stand beside others"):
        read_study(file)
    file.write_text(start + "}\ntune: {DACT: {learning_rate: 'choice [0.1]'}}\n")
    with pytest.raises(ConfigError, match="tune: rows over periods"):
        read_study(file)


@pytest.mark.slow
def test_a_study_over_periods_from_its_file_to_its_report_and_found_again(tmp_path, monkeypatch):
    """Tables by names, of which one ends early; all start from one first period a seed."""
    monkeypatch.chdir(tmp_path)
    write_tiny_dataset(tmp_path / "data", n_users=80, n_items=30)
    rng = np.random.default_rng(0)
    for name in ("start", "other"):
        rows = {f"i{i}": [f"<a_{a}>", f"<b_{b}>", f"<c_{i}>"]
                for i, (a, b) in enumerate(rng.integers(0, 5, (30, 2)))}  # fmt: skip
        Path(f"{name}.json").write_text(json.dumps(rows))
    settings = {
        **SMALL, "epochs": 1, "data_path": str(tmp_path / "data"), "sid_gate": "off",
        "continual_cuts": [0.5, 0.75, 1.0], "continual_suffix_size": 40, "topk": [5, 10],
        "codebook_size": 6, "continual_tokenizer": "files",
        "continual_recommender": ["frozen", "finetune"],
        "continual_sid_files": {"kept": ["start.json"] * 3, "other": ["start.json", "other.json"]},
    }  # fmt: skip
    plan = {
        "name": "periods", "datasets": ["tiny"], "seeds": [1, 2], "baseline": "kept/finetune",
        "settings": settings,
        "models": {"TIGER": {"model": "DACT"},
                   "IntRR": {"model": "DACT", "continual_model": "IntRR", "uid_size": 8}},
    }  # fmt: skip
    Path("periods.yaml").write_text(json.dumps(plan))
    outcome = study("periods.yaml")
    assert outcome["failed"] == {} and outcome["done"] == 4
    sets = outcome["report"]["datasets"]
    assert {"tiny, TIGER, periods 1 to 2", "tiny, IntRR, period 1"} <= set(sets)
    first = sets["tiny, TIGER, period 1"]["differences"]["with_history"]
    assert set(first) == {"kept/frozen", "other/frozen", "other/finetune", POPULARITY}
    assert first["other/finetune"]["ndcg@10"]["seeds"] == 2
    later = sets["tiny, TIGER, period 2"]["metrics"]["with_history"]
    assert "other/finetune" not in later and "kept/finetune" in later
    assert Path(outcome["files"]["disruption"]).is_file()
    folders = list(Path("saved/studies/periods/tiny").iterdir())
    starts = [list(folder.rglob("period-0/*start*.pth")) + list(folder.rglob("period-0/*.pth"))
              for folder in folders]  # fmt: skip
    assert all(len({path.name for path in files}) == 1 for files in starts)
    again = study("periods.yaml")
    assert (again["found"], again["done"]) == (4, 0)
    assert again["table"] == outcome["table"]
    keys = {cell.key for cell in read_study("periods.yaml").cells()}
    Path("other.json").write_text(Path("start.json").read_text())
    assert not keys & {cell.key for cell in read_study("periods.yaml").cells()}
