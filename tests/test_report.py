"""Claims about the comparison table and its files."""

import csv
import json
import re

import pytest
from runs import arguments

from recbole_gr.commands.sid_features import main as sid_features
from recbole_gr.continual.period_table import continual_table, write_continual_report
from recbole_gr.report import tokenizers
from recbole_gr.report.bucket_table import bucket_table
from recbole_gr.report.comparison import comparison_table, markdown_table, write_report
from recbole_gr.report.figure import interval_rows, panels, shared_legend
from recbole_gr.report.lines import interval_text
from recbole_gr.report.table import Column, table_text
from recbole_gr.search.report import trial_rows, trial_table
from run_recbole_gr import main


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


def test_metrics_of_a_kind_stand_together_and_costs_come_last(results):
    columns, rows = comparison_table(results)
    assert [column.title for column in columns] == [
        "model", "AUC", "LogLoss", "Recall@5", "Recall@10", "NDCG@5", "NDCG@10", "MRR@5", "MRR@10",
        "best epoch", "s/epoch", "parameters", "peak MiB",
    ]  # fmt: skip
    assert rows[0][3:9] == [0.1, 0.2, 0.05, 0.08, 0.03, 0.04]
    assert rows[1][-4:] == [0, 1.23456, 1234567, 512.0]
    assert rows[2][3:9] == [None] * 6


def test_markdown_marks_the_best_of_each_metric(results):
    lines = markdown_table(results).splitlines()
    tiger, pop, deepfm = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert tiger[3] == "**0.1000**" and pop[3] == "0.0200" and deepfm[3] == "-"
    assert tiger[4] == "0.2000" and pop[4] == "**0.3000**"
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


def metrics_of(line):
    """The metrics that a line names, in its order."""
    return re.findall(r"[A-Za-z]+@\d+|AUC|LogLoss", line)


def tables_of(text):
    """The metrics in the heads of the tables of a page."""
    lines = text.splitlines()
    return [metrics_of(head) for head, rule in zip(lines, lines[1:]) if set(rule) == set("| -:")]


def test_every_table_and_line_spells_metrics_alike_and_in_one_order(tmp_path):
    values = {"map@3": 0.1, "ndcg@1": 0.2, "recall@3": 0.3, "ndcg@3": 0.4, "recall@1": 0.5}
    once = {"targets": 2, **dict(reversed(values.items()))}
    period = {"period": 0, "method": "m", "tokenizer": None, "churn": None}
    period |= {"tokenizer_seconds": None, "recommender_seconds": 1.0}
    results = [
        result("A", values, test_buckets={"0": {"targets": 0}, "1+": once}, **period),
        result("B", {"auc": 0.5, "ndcg@1": 0.1}, **period),
    ]
    expected = ["MAP@3", "NDCG@1", "NDCG@3", "Recall@1", "Recall@3"]
    files = write_report(results, tmp_path)
    tables = tables_of(open(files["md"]).read())
    assert tables == [["AUC", *expected], expected] == [
        metrics_of(markdown_table(results).splitlines()[0]),
        metrics_of(bucket_table(results).splitlines()[0]),
    ]
    assert [column.title for column in continual_table(results)[0][3:9]] == ["AUC", *expected]
    for path in (files["csv"], write_continual_report(results, tmp_path)[0]["csv"]):
        assert metrics_of(open(path).readline()) == ["AUC", *expected]
    assert metrics_of(interval_text(results[0], most=3)) == ["MAP@3", "Recall@3", "NDCG@3"]


def test_a_run_has_one_order_and_one_spelling_from_its_tables_to_its_last_lines(
    tiny_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    own = {"metrics": "[mrr,Recall,Hit]", "topk": "[3,1]", "valid_metric": "mrr@3"}
    assert main(arguments("Pop,BPR", tiny_folder, eval_buckets="[0,12]", **own)) == 0
    expected = [f"{metric}@{cut}" for metric in ("MRR", "Recall", "Hit") for cut in (1, 3)]
    (page,) = tmp_path.rglob("results.md")
    printed, said = capsys.readouterr()
    assert "mrr@3" not in printed + said and "MRR@3" in printed + said
    assert tables_of(printed) == [expected] * 2
    assert tables_of(page.read_text()) == [expected] * 3  # without the history, too
    lines = [line for line in printed.splitlines() if ": best epoch" in line]
    assert [metrics_of(line) for line in lines] == [["MRR@3", "Recall@3"]] * 2


def test_sid_features_tables_are_those_of_a_run(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [
        "--dataset=tiny", f"--data_path={tiny_folder}", "--compare=LR", "--epochs=1",
        "--tokenizer=RKMeans", "--codebook_size=8", "--sid_levels=2", "--content_dim=8",
        "--sid_gate=off", "--threshold={'rating': 3}", "--show_progress=False",
        "--eval_buckets=[0,12]",
    ]  # fmt: skip
    assert sid_features(command) == 0
    assert tables_of(capsys.readouterr().out) == [["AUC", "LogLoss"]] * 2


def test_tables_of_a_search_have_that_spelling_and_their_csv_that_order():
    values = {"ndcg@10": 0.5, "recall@10": 0.25, "ndcg@5": 0.125}
    trial = {"number": 3, "params": {"x": 0.1}, "valid_score": 0.5, "test_result": values}
    trial |= {"valid_result": values, "seconds": 2.0, "status": "finished"}
    lines = trial_table([trial], "ndcg@10").splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "trial", "x", "valid NDCG@10", "test NDCG@10", "seconds", "status"
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "3", "0.1", "0.5000", "0.5000", "2", "finished"
    ]  # fmt: skip
    head, row = trial_rows([trial])
    names = ["ndcg@5", "ndcg@10", "recall@10"]  # as the results have them, for programs
    assert head[3:9] == [f"{split} {name}" for split in ("valid", "test") for name in names]
    assert row[3:9] == [0.125, 0.5, 0.25] * 2


@pytest.mark.parametrize("n", [0, 1, 4, 13])
@pytest.mark.parametrize("across", [1, 3, 4])
def test_a_figure_has_a_panel_for_each_of_any_number(n, across):
    figure, places = panels(n, across=across)
    assert [place for place in figure.axes if place.axison] == places and len(places) == n


def test_a_thirteenth_figure_of_tokenizers_has_its_column_and_its_panel(monkeypatch, tmp_path):
    more = {f"key {number}": Column(f"title {number}", "{:.3f}", True) for number in range(13)}
    monkeypatch.setattr(tokenizers, "COLUMNS", more)
    rows = {"A": dict.fromkeys(more, 1.0), "B": dict.fromkeys(more)}
    shown = [place for place in tokenizers.plot_comparison("", rows).axes if place.axison]
    titles = [column.title for column in more.values()]
    assert [place.get_title() for place in shown] == titles
    head, _, a, b = tokenizers.comparison_table(rows).splitlines()
    assert re.findall(r"title \d+", head) == titles
    assert a.count("**1.000**") == 13 and b.count(" - ") == 13


def test_cells_of_no_value_are_dashes_and_large_numbers_have_no_powers_of_ten():
    columns = [Column("name"), Column("x", "{:.3g}", False), Column("none", "{:.1f}", True)]
    rows = [["a", 1234.5, None], ["b", float("nan"), float("inf")], ["c", 0.01234, None]]
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table_text(columns, rows).splitlines()[2:]
    ]
    assert cells == [["a", "**1,234**", "-"], ["b", "-", "-"], ["c", "0.0123", "-"]]
    assert "*" not in table_text(columns, rows[:1]) + table_text(columns, rows, mark_best=False)


def test_a_figure_of_many_long_names_keeps_its_panels_wide_and_its_legend_whole():
    names = [f"popularity of the period, a data set, targets trained there, {i}" for i in range(20)]
    figure, (panel,) = panels(1, (4.5, 8.0))
    found = [(0.1, 0.05, 0.2)] * len(names)
    interval_rows(panel, names, {"with history": found, "without history": found})
    shared_legend(figure)
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    assert panel.get_window_extent().width > 0.4 * width
    assert [label.get_text().replace("\n", " ") for label in panel.get_yticklabels()] == names
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= panel.bbox.y0
    assert [text.get_text() for text in legend.get_texts()] == ["with history", "without history"]
