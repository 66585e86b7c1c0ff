"""Every JSON file that a run writes is one that any reader takes."""

import json
import math

import numpy as np
import pytest
import torch
from recbole.evaluator import Evaluator
from runs import RUNS, arguments

from recbole_gr.commands.tokenize import main as tokenize
from recbole_gr.continual.drift_report import drift_report
from recbole_gr.continual.period_table import write_continual_report
from recbole_gr.errors import ConfigError
from recbole_gr.quality.measures import quality_report
from recbole_gr.report.comparison import write_report
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.json_files import load_json, save_json
from run_recbole_gr import main

NAN, INF = float("nan"), float("inf")


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def strict_files(folder):
    return {path.name: strict(path.read_text("utf-8")) for path in folder.rglob("*.json")}


def test_what_json_has_no_word_for_is_null_and_numbers_of_libraries_are_numbers(tmp_path):
    value = {
        1: [NAN, INF, -INF, 0.5], "numpy": [np.float32("nan"), np.float64("inf"), np.int64(3)],
        "torch": torch.tensor(2.5), "tuple": (1, (NAN,)), "path": tmp_path, "none": None,
    }  # fmt: skip
    save_json(tmp_path / "new" / "a.json", value)
    assert strict((tmp_path / "new" / "a.json").read_text()) == {
        "1": [None, None, None, 0.5], "numpy": [None, None, 3], "torch": 2.5,
        "tuple": [1, [None]], "path": str(tmp_path), "none": None,
    }  # fmt: skip


@pytest.mark.parametrize("data", [None, b"{", b"\xff", b"[" * 100_000, b"\0"])
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(data, tmp_path):
    if data is not None:
        (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ConfigError, match="thing .*a.json'? cannot be read"):
        load_json(tmp_path / "a.json", f"thing {tmp_path / 'a.json'}")
    if data == b"{":
        with pytest.raises(ConfigError, match="a.json' cannot be read as JSON: .*Write it again."):
            load_json(tmp_path / "a.json", remedy="Write it again.")


def test_reports_of_figures_that_are_none(tmp_path):
    result = {
        "model": "M", "dataset": "tiny", "test_result": {"recall@5": NAN}, "best_valid_score": -INF,
        "test_buckets": {"0+": {"targets": 1, "recall@5": NAN}}, "seconds_per_epoch": NAN,
        "epoch_figures": [{"epoch": 0, "stage": "a", "figures": {"loss": {"x": NAN}}}],
        "redistribution": [{"item": "i", "sid": [0], "probability": [[NAN, 1.0]]}],
        "period": 1, "method": "m", "tokenizer": "m", "churn": None, "tokenizer_seconds": NAN,
        "recommender_seconds": INF,
    }  # fmt: skip
    files = write_report([result], tmp_path)
    periods, table = write_continual_report([result], tmp_path)
    vectors, gone = torch.zeros(2, 3), torch.tensor([True, False])
    drift_report(tmp_path, ["a", "b"], vectors, vectors, gone, torch.tensor([NAN, INF]))
    quality = quality_report(SIDTable.from_item_codes(torch.tensor([[0], [1]]), (2,)))
    quality.semantics["sc"] = NAN
    quality.to_json(tmp_path / "report.json")
    found = strict_files(tmp_path)
    names = "results epochs-M redistribution-M continual drift report".split()
    assert set(found) == {f"{name}.json" for name in names}
    assert found["results.json"][0]["test_result"] == {"recall@5": None}
    assert found["report.json"]["semantics"] == {"sc": None}
    for path in (files["md"], files["csv"], periods["csv"], tmp_path / "drift.csv"):
        text = open(path).read()
        assert "nan" not in text and "inf" not in text
    assert "nan" not in table and "inf" not in table


@pytest.fixture
def without_a_metric(tmp_path, monkeypatch):
    """In a folder of its own, MRR@5 of each evaluation is NaN."""
    evaluate = Evaluator.evaluate
    monkeypatch.setattr(Evaluator, "evaluate", lambda *args: {**evaluate(*args), "mrr@5": NAN})
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_all_json_files_of_a_run_whose_metric_is_not_a_number(
    without_a_metric, tiny_folder, tmp_path
):
    assert main(arguments("IntRR,Pop", tiny_folder, **RUNS["IntRR"][1])) == 0
    found = strict_files(tmp_path)
    names = {"results", "manifest", "epochs-IntRR", "redistribution-IntRR"}
    assert {f"{name}.json" for name in names} <= set(found)
    for result in (*found["results.json"], *found["manifest.json"]["runs"]):
        for split in ("best_valid_result", "test_result"):
            assert result[split]["mrr@5"] is None and math.isfinite(result[split]["mrr@10"])


@pytest.mark.slow
def test_all_json_files_of_periods_whose_metric_is_not_a_number(
    without_a_metric, tiny_folder, tmp_path
):
    own = {"continual_cuts": [0.6, 1.0], "continual_tokenizer": "frozen", "tokenizer": "RKMeans",
           "continual_recommender": "finetune", "sid_gate": "off"}  # fmt: skip
    for _ in range(2):  # the second time it reads what it kept
        assert main(arguments("DACT", tiny_folder, **{**RUNS["TIGER"][1], **own})) == 0
        found = strict_files(tmp_path)
        tests = [result["test_result"] for result in found["continual.json"]]
        assert all(test["mrr@5"] is None and math.isfinite(test["mrr@10"]) for test in tests)
    tables = [path.read_text() for path in tmp_path.rglob("continual.md")]
    assert len(tables) == 2 and tables[0] == tables[1]


@pytest.mark.slow
def test_all_json_files_of_tokenizers_side_by_side(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--codebook_size=8", "--sid_levels=2", "--content_dim=8", "--show_progress=False")
    command = ["--dataset=tiny", f"--data_path={tiny_folder}", "--tokenizer=RKMeans,OPQ", *small]
    assert tokenize(command) == 0
    assert {"comparison.json", "report.json", "sid.json"} <= set(strict_files(tmp_path))
