"""The project's own studies: files that can be run, and pages that say what their reports say."""

import importlib.util
import json
import shutil

import pytest
from pages import PAGES, ROOT

from recbole_gr.study.study_file import read_study

STUDIES = sorted((ROOT / "studies").glob("*/study.yaml"))
REPORT = {
    "baseline": "SASRec",
    "rows": ["SASRec", "TIGER", "Pop"],
    "datasets": {
        "ml-100k": {
            "metrics": {
                "with_history": {
                    "SASRec": {
                        "recall@10": {"mean": 0.12, "deviation": 0.01, "seeds": [0.11, 0.13]},
                        "ndcg@10": {"mean": 0.061, "deviation": 0.0004, "seeds": [0.06, 0.062]},
                    },
                    "TIGER": {"ndcg@10": {"mean": 0.07, "deviation": 0.0, "seeds": [0.07]}},
                },
                "without_history": {},
            },
            "differences": {
                "with_history": {
                    "TIGER": {
                        "ndcg@10": {"mean": 0.009, "low": -0.001, "high": 0.02, "verdict": "open"}
                    }
                }
            },
        }
    },
}
ROWS = [
    ["ml-100k", "SASRec", "0.1200 ± 0.0100", "0.0610 ± 0.0004", "-", "-", ""],
    ["", "TIGER", "-", "0.0700", "-", "-", "+0.0090 [-0.0010, +0.0200] open"],
    ["", "Pop", "-", "-", "-", "-", ""],
]


@pytest.fixture
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "studies" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_holds_the_figures_of_its_report(tables):
    head, rule, *rows = tables.table(REPORT).splitlines()
    assert [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows] == ROWS
    titles = ["data set", "model", "Recall@10", "NDCG@10"]
    assert [cell.strip() for cell in head.split("|")[1:5]] == titles and "minus SASRec" in head


def test_a_difference_that_rounds_to_nothing_has_no_minus(tables):
    ndcg = {"mean": -1e-6, "low": -0.002, "high": 0.002, "verdict": "open"}
    found = {"differences": {"with_history": {"TIGER": {"ndcg@10": ndcg}}}}
    assert tables._difference(found, "TIGER") == "+0.0000 [-0.0020, +0.0020] open"


def test_a_row_stands_with_the_data_sets_that_it_is_for(tables):
    second = {"metrics": {"with_history": {"SASRec": {}}}, "differences": {}}
    both = {**REPORT, "datasets": {**REPORT["datasets"], "toys": second}}

    def rows(report):
        lines = tables.table(report).splitlines()[2:]
        names = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
        return names[[name for name, _ in names].index("toys") :]

    assert rows(both) == [["toys", "SASRec"], ["", "Pop"]]  # TIGER ran on the other alone
    failed = {**both, "failed": {"TIGER on toys, seed 1": "out of memory"}}
    assert rows(failed) == [["toys", "SASRec"], ["", "TIGER"], ["", "Pop"]]


def test_a_page_is_filled_between_its_marks_alone(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "STUDIES", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.json").write_text(json.dumps(REPORT))
    page = "a\n<!-- study: mine -->\nold\n<!-- end of study -->\nb\n"
    table = tables.table(REPORT)
    assert tables.filled(page) == page.replace("old", table)
    assert tables.filled(tables.filled(page)) == tables.filled(page)
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(tables, "PAGES", [tmp_path / "page.md"])
    tables.main()
    assert table in (tmp_path / "page.md").read_text()
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(FileNotFoundError):
        tables.filled(page)


def test_a_page_may_ask_for_some_rows(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "STUDIES", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.json").write_text(json.dumps(REPORT))
    page = "a\n<!-- study: mine of: Pop | SASRec -->\nold\n<!-- end of study -->\nz\n"
    made = tables.filled(page)
    names = [line.split("|")[2].strip() for line in made.splitlines() if line.startswith("|")]
    assert names[2:] == ["Pop", "SASRec"] and "of: Pop | SASRec -->\n|" in made
    assert tables.filled(made) == made and made.endswith("<!-- end of study -->\nz\n")
    with pytest.raises(KeyError, match="'Po' is no row"):
        tables.filled(page.replace("Pop", "Po"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_what_the_reports_of_studies_say(page, tables):
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run python studies/tables.py"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.parent.name)
def test_a_study_can_be_run_and_is_reported_as_its_file_has_it(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = read_study(file)
    assert plan.name == file.parent.name and plan.baseline in plan.rows

    if plan.datasets == ["ml-100k"]:  # the data of others are not part of the project
        assert len(plan.cells()) == len(plan.rows) * len(plan.seeds)
    report = file.with_name("report.json")
    if report.is_file():
        found = json.loads(report.read_text(encoding="utf-8"))
        assert found["rows"] == plan.rows and found["seeds"] == plan.seeds
        assert found["failed"] == {} and set(found["datasets"]) == set(plan.datasets)
        assert file.with_name("README.md").is_file()
