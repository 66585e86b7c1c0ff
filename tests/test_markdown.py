"""Tables for people: what a spreadsheet does with a cell."""

import csv
import io

import pytest
import torch

from recbole_gr.continual.drift_report import drift_report
from recbole_gr.report.comparison import write_report
from recbole_gr.report.table import csv_cell, write_csv
from recbole_gr.report.tokenizers import COLUMNS, write_comparison
from recbole_gr.search.report import trial_rows
from recbole_gr.serving.recommend import _csv_rows
from recbole_gr.serving.recommender import Recommendation

FORMULA = "=HYPERLINK(1)"


@pytest.mark.parametrize("text", [FORMULA, "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "-"])
def test_text_that_a_spreadsheet_would_compute_is_shown(text):
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize("value", [-1, -0.5, "-1", "+1.5", "-1e-3", "i1", "", "a=b", "'", "-inf"])
def test_numbers_and_other_text_stay_as_they_are(value):
    assert csv_cell(value) == value


def csv_text(rows):
    text = io.StringIO()
    write_csv(text, rows)
    return text.getvalue()


def test_a_missing_value_is_an_empty_cell():
    assert csv_text([["a", None], [1, -2.5], ["", float("nan")]]) == "a,\n1,-2.5\n,\n"


def cells(text):
    return [cell for row in csv.reader(io.StringIO(text)) for cell in row]


def test_every_csv_shows_formulas_as_text(tmp_path):
    trial = {
        "number": 0, "params": {"x": FORMULA}, "seconds": 1.0, "status": "failed", "message": "-oh",
    }  # fmt: skip
    write_report([{"model": FORMULA, "test_result": {"recall@5": -0.5}}], tmp_path)
    write_comparison(tmp_path, "title", {FORMULA: dict.fromkeys(COLUMNS, -0.5)})
    drift_report(
        tmp_path / "drift", [FORMULA, "i1"], torch.randn(2, 3), torch.randn(2, 3),
        torch.tensor([True, False]), None,
    )  # fmt: skip
    answers = io.StringIO()
    _csv_rows(answers, {"i1": "@title"})(Recommendation(FORMULA, ["i1"], [-0.5]))
    texts = [
        (tmp_path / "results.csv").read_text(),
        csv_text(trial_rows([trial])),
        (tmp_path / "comparison.csv").read_text(),
        (tmp_path / "drift" / "drift.csv").read_text(),
        answers.getvalue(),
    ]
    for text in texts:
        assert f"'{FORMULA}" in cells(text) and FORMULA not in cells(text)
    assert "'-oh" in cells(texts[1]) and "-0.5" in cells(texts[2]) and "'@title" in cells(texts[4])
