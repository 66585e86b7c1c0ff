"""Claims about the comparison table and its files."""

import csv
import json

import pytest

from recbole_gr.report.comparison import comparison_table, markdown_table, write_report


def result(model, test, **more):
    return {
        "model": model,
        "dataset": "tiny",
        "test_result": test,
        "best_epoch": 3,
        "seconds_per_epoch": 1.23456,
        "parameters": 1234567,
        "peak_memory_bytes": 512 * 2**20,
        **more,
    }


@pytest.fixture
def results():
    metrics = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@5", "mrr@10")
    return [
        result("TIGER", dict(zip(metrics, (0.1, 0.2, 0.05, 0.08, 0.03, 0.04)))),
        result("Pop", dict(zip(metrics, (0.02, 0.3, 0.01, 0.02, 0.005, 0.01))), best_epoch=0),
        result("DeepFM", {"auc": 0.7, "logloss": 0.5}),
    ]


def test_metrics_are_ordered_by_cutoff_and_costs_come_last(results):
    columns, rows = comparison_table(results)
    assert [column.title for column in columns] == [
        "model", "AUC", "LogLoss", "Recall@5", "NDCG@5", "MRR@5", "Recall@10", "NDCG@10", "MRR@10",
        "best epoch", "s/epoch", "parameters", "peak MiB",
    ]  # fmt: skip
    assert rows[0][3:9] == [0.1, 0.05, 0.03, 0.2, 0.08, 0.04]
    assert rows[1][-4:] == [0, 1.23456, 1234567, 512.0]
    assert rows[2][3:9] == [None] * 6


def test_markdown_marks_the_best_of_each_metric(results):
    lines = markdown_table(results).splitlines()
    tiger, pop, deepfm = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert tiger[3] == "**0.1000**" and pop[3] == "0.0200" and deepfm[3] == "-"
    assert tiger[6] == "0.2000" and pop[6] == "**0.3000**"
    assert tiger[-4:] == ["3", "1.23", "1,234,567", "512"]
    assert len({len(line) for line in lines}) == 1


def test_smaller_is_better_for_losses():
    table = markdown_table([result("A", {"logloss": 0.5}), result("B", {"logloss": 0.4})])
    assert "**0.4000**" in table and "**0.5000**" not in table


def test_four_files_are_written_and_hold_the_exact_values(results, tmp_path):
    results[0]["best_valid_score"] = float("-inf")
    files = write_report(results, tmp_path / "new" / "folder")
    assert sorted(files) == ["csv", "json", "md", "png"]
    with open(files["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["Recall@10"]) == 0.2 and rows[2]["Recall@10"] == ""
    loaded = json.loads(open(files["json"]).read())
    assert loaded[0]["test_result"] == results[0]["test_result"]
    assert loaded[0]["best_valid_score"] is None
    assert open(files["png"], "rb").read(8) == b"\x89PNG\r\n\x1a\n"
    assert open(files["md"]).read().startswith("# tiny\n")


def test_a_result_without_a_test_is_still_reported(tmp_path):
    files = write_report([result("A", None, peak_memory_bytes=None)], tmp_path)
    assert "| A" in open(files["md"]).read()
