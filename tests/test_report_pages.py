"""The pages of runs, studies, searches and periods: they show what the JSON beside them holds."""

import html
import json
import re

import numpy as np
import pytest
from runs import SMALL

from recbole_gr.errors import ConfigError
from recbole_gr.pages.command import main, write_pages
from recbole_gr.pages.parts import changed_settings, typed
from recbole_gr.pages.run import _by_ties, write_run_page
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.study.report import _spread_text

MEASURED = {"recall@5": 0.25, "recall@10": 0.5, "ndcg@10": 0.125}


def figures_of(page):
    """The figures of a page by their title."""
    found = re.findall(
        r"<figcaption class=title>(.*?)</figcaption><div class=plot.*?>"
        r'<script type="application/json">(.*?)</script>',
        page,
        flags=re.S,
    )
    return {html.unescape(title): json.loads(data) for title, data in found}


def rows_of(page):
    """The texts of the cells of all tables."""
    return [
        [
            html.unescape(re.sub("<.*?>", "", cell))
            for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    """Folder and results of a run of two models."""
    folder = tmp_path_factory.mktemp("run")
    own = {"result_dir": str(folder / "results"), "checkpoint_dir": str(folder / "saved")}
    settings = {
        **SMALL, **own, "data_path": str(tiny_folder), "codebook_size": 8, "content_dim": 8,
        "epochs": 2, "uid_size": 12, "ran_hidden_size": 24, "sid_dir": str(folder / "sid"),
        "tie_order": "shuffled",
    }  # fmt: skip
    outcome = run_recbole_gr(model="TIGER,IntRR", dataset="tiny", config_dict=settings)
    return next((folder / "results").iterdir()), outcome


def test_a_run_leaves_its_page_which_shows_its_metrics_with_their_intervals(run):
    folder, outcome = run
    assert outcome["files"]["html"] == str(folder / "results.html")
    page = (folder / "results.html").read_text()
    figures = figures_of(page)
    for metric, title in (("recall@10", "Recall@10"), ("ndcg@5", "NDCG@5")):
        trace = figures[title]["data"][0]
        assert trace["text"] == ["TIGER", "IntRR"]
        for number, result in enumerate(outcome["results"]):
            value, (low, high) = (
                result["test_result"][metric], result["test_interval"]["metrics"][metric],
            )  # fmt: skip
            assert trace["x"][number] == value
            reach = trace["error_x"]
            assert value + reach["array"][number] == pytest.approx(high)
            assert value - reach["arrayminus"][number] == pytest.approx(low)
    curve = figures["validation NDCG@10"]["data"][0]
    assert list(zip(curve["x"], curve["y"])) == list(
        map(tuple, outcome["results"][0]["valid_curve"])
    )
    assert any(title.startswith("IntRR, item ") for title in figures)


def test_the_page_of_a_run_has_provenance_and_commands_that_can_be_copied(run):
    folder, outcome = run
    page = html.unescape((folder / "results.html").read_text())
    for result in outcome["results"]:
        assert f"--checkpoint={result['checkpoint']}" in page
        assert result["sid_digest"] in page
    manifest = json.loads((folder / "manifest.json").read_text())
    for value in manifest["runs"][0]["data"].values():
        assert value in page
    assert f"verify {folder / 'manifest.json'}" in page


def test_the_page_of_a_run_leads_to_that_of_its_sids(run):
    folder, _ = run
    assert '<a href="sids.html">' in (folder / "results.html").read_text()
    assert (folder / "sids.html").is_file()


def test_settings_shown_are_those_given_that_are_no_defaults(run):
    _, outcome = run
    result = json.loads(json.dumps(outcome["results"][0], default=str))
    changed = changed_settings(result)
    assert changed["codebook_size"] == (8, "auto") and changed["tie_order"] == ("shuffled", "file")
    assert "topk" not in changed  # given, as the default has it
    assert "position" not in changed  # worked out by the model
    del result["given"]  # as of former versions
    earlier = changed_settings(result)
    assert earlier["tie_order"] == ("shuffled", "file") and "position" not in earlier
    other = {**result, "config": {**result["config"], "model": "NoSuchModel"}}
    assert changed_settings(other) == {}


@pytest.mark.whole_pages
def test_a_page_is_made_again_also_of_a_run_of_a_former_version(run, tmp_path):
    folder, _ = run
    before = (folder / "results.html").read_bytes()
    (folder / "results.html").unlink()
    walked = (folder / "sids.html").read_bytes()  # IntRR gives items other SIDs
    assert write_pages(folder) == [folder / "results.html", folder / "sids.html"]
    assert (folder / "sids.html").read_bytes() == walked
    assert (folder / "results.html").read_bytes() == before
    assert main([str(folder), f"--to={tmp_path / 'elsewhere'}"]) == 0
    assert (tmp_path / "elsewhere/results.html").read_bytes() == before
    assert (tmp_path / "elsewhere/sids.html").read_bytes() == walked
    old = [{"model": "SASRec", "dataset": "d", "test_result": MEASURED, "best_epoch": 3}]
    (tmp_path / "results.json").write_text(json.dumps(old))
    page = write_run_page(tmp_path).read_text()
    assert "0.5000" in page and list(figures_of(page)) == ["test metrics, 95 % interval"]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            ["/v/bin/python", "/home/me/run_recbole_gr.py", "--a=b c"],
            "python /home/me/run_recbole_gr.py '--a=b c'",
        ),
        (["python", "/x/recbole_gr/__main__.py", "study", "f"], "python -m recbole_gr study f"),
        (
            ["python", "/x/recbole_gr/commands/tokenize.py"],
            "python -m recbole_gr.commands.tokenize",
        ),
        (["python", "-c"], "python -c"),
    ],
)
def test_commands_are_written_as_they_are_typed(arguments, text):
    assert typed(arguments) == text


def test_targets_tied_in_time_are_measured_apart(tmp_path):
    ranks = np.array([0, 3, -1, 12, 9])
    tied = np.array([True, False, False, True, True])
    np.savez(tmp_path / "r.npz", with_history=ranks, tied=tied)
    found = {name: (n, values) for name, n, values in _by_ties(tmp_path / "r.npz")}
    assert found["later"] == (2, {"recall@10": 0.5, "ndcg@10": pytest.approx(0.5 / np.log2(5))})
    for name, flag in (("as that of the event before", True), ("later", False)):
        own = [r for r, t in zip(ranks, tied) if t == flag]
        hits = [0 <= r < 10 for r in own]
        gains = [1 / np.log2(r + 2) if hit else 0 for r, hit in zip(own, hits)]
        n, values = found[name]
        assert n == len(own) and values["recall@10"] == pytest.approx(np.mean(hits))
        assert values["ndcg@10"] == pytest.approx(np.mean(gains))
    np.savez(tmp_path / "none.npz", with_history=ranks, tied=np.zeros(5, bool))
    assert _by_ties(tmp_path / "none.npz") == _by_ties(tmp_path / "missing.npz") == []


DIFFERENCE = {"mean": 0.02, "low": 0.01, "high": 0.04, "verdict": "ahead", "needed_seeds": None}
STUDY = {
    "study": "two <rows>", "baseline": "SASRec", "seeds": [1, 2],
    "rows": {"SASRec": {"model": "SASRec"}, "IntRR": {"model": "IntRR", "dropout": 0.2}},
    "settings": {"epochs": 1}, "failed": {"IntRR on d, seed 3": "no room"},
    "provenance": {"runs": 4, "seconds": 7200.0, "made_on": [], "data": {"d": {"d.inter": "abc"}}},
    "datasets": {
        "d": {
            "metrics": {
                "with_history": {
                    row: {"recall@10": {"mean": sum(seeds) / 2, "deviation": 0.0, "seeds": seeds}}
                    for row, seeds in (("SASRec", [0.1, 0.12]), ("IntRR", [0.13, 0.13]))
                }
            },
            "differences": {"with_history": {"IntRR": {"recall@10": DIFFERENCE}}},
            "remarks": [], "costs": {"SASRec": {"epochs_run": 1.0}, "IntRR": {}},
            "buckets": [["SASRec", "6+", 10.0, {"recall@10": [0.1, 0.12]}]], "ties": [],
            "trained": {
                "IntRR": {"checkpoint": "c.pth", "example": {"user": "7", "k": 5},
                          "sid_digest": "x"},
                "SASRec": {"checkpoint": None, "example": None, "sid_digest": None},
            },
            "curves": {"IntRR": {"1": [[0, 0.1], [1, 0.2]], "2": [[0, 0.3]]}},
            "tuning": {
                "IntRR": {
                    "metric": "NDCG@10", "chosen": {"dropout": 0.2}, "score": 0.5, "trial": 1,
                    "trials": [
                        {"number": 0, "params": {"dropout": 0.1}, "message": "failed"},
                        {"number": 1, "params": {"dropout": 0.2}, "score": 0.5},
                    ],
                }
            },
        }
    },
}  # fmt: skip


def test_the_page_of_a_study_shows_differences_means_and_what_was_chosen(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(STUDY))
    (path,) = write_pages(tmp_path, tmp_path / "there")
    page = path.read_text()
    assert path == tmp_path / "there/report.html"
    trace = figures_of(page)["Recall@10 minus that of SASRec"]["data"][0]
    assert trace["x"] == [0.02] and trace["error_x"]["array"] == [pytest.approx(0.02)]
    learning = figures_of(page)["validation score while training"]["data"][0]
    assert learning["x"] == [0] and learning["y"] == [pytest.approx(0.2)]  # of both seeds
    rows = rows_of(page)
    assert ["SASRec", _spread_text([0.1, 0.12])] in rows and ["IntRR", "0.1300 ± 0.0000"] in rows
    assert ["IntRR", "dropout=0.2", "0.5000", "chosen"] in rows
    assert ["IntRR on d, seed 3", "no room"] in rows and ["d.inter", "abc"] in rows
    verdict = next(row for row in rows if "ahead" in row)
    assert verdict[:2] == ["IntRR", "Recall@10"] and "[+0.0100, +0.0400]" in verdict
    assert "recommend --checkpoint=c.pth --user=7 --k=5" in page and "--output=c.pt2" in page
    assert "two <rows>" in html.unescape(page) and "two <rows>" not in page


def test_the_page_of_a_search_shows_trials_and_scores_by_setting(tmp_path):
    kept = {"seconds": 2.0, "status": "finished", "message": None}
    trials = [
        {"number": n, "params": {"learning_rate": 10.0**-n, "x": "a"}, "valid_score": n / 10,
         "test": None, **kept}
        for n in (1, 2, 3)
    ]  # fmt: skip
    trials.append(
        {**trials[0], "number": 4, "valid_score": None, "status": "failed", "message": "m"}
    )
    found = {
        "model": "TIGER", "dataset": "d", "metric": "ndcg@10", "criterion": "distinct",
        "command": "python x", "trials": trials,
        "tokenizers": [{"number": 0, "params": {"beta": 1}, "figure": 0.9, "against": ""}],
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(found))
    assert write_pages(tmp_path / "s.json") == [tmp_path / "s.html"]
    page = (tmp_path / "s.html").read_text()
    figures = figures_of(page)
    assert set(figures) == {"validation NDCG@10", "NDCG@10 by learning_rate"}  # x never changes
    by_rate = figures["NDCG@10 by learning_rate"]
    assert by_rate["layout"]["xaxis"]["type"] == "log"
    assert by_rate["data"][0]["y"] == [0.1, 0.2, 0.3]
    assert [row[-1] for row in rows_of(page) if row[0] == "4"] == ["failed: m"]
    assert "90.00%" in page and "python x" in page
    assert write_pages(tmp_path / "s.json", tmp_path / "t")[0].read_text() == page


def test_the_page_of_periods_keeps_methods_apart_and_shows_churn_and_drift(tmp_path):
    churn = {"raw": [0.1, 0.2], "raw_any": 0.25, "final": [0.1, 0.1], "final_any": 0.15}
    drift = {"median_drift": 0.3, "by_cf_drift": [{"change_rate": 0.4}, {"change_rate": 0.1}]}
    results = [
        {"period": period, "method": method, "model": "TIGER", "tokenizer": method.split("/")[0],
         "test_result": MEASURED, "churn": churn if period else None, "drift": drift,
         "test_interval": {"users": 5, "metrics": {"recall@10": [0.4, 0.7]}}}
        for period in (0, 1, 2) for method in ("dact/finetune", "frozen/finetune")
    ]  # fmt: skip
    (tmp_path / "continual.json").write_text(json.dumps(results))
    (path,) = write_pages(tmp_path)
    assert write_pages(tmp_path, tmp_path / "t")[0].read_text() == path.read_text()
    figures = figures_of(path.read_text())
    first, second = figures["Recall@10"]["data"]  # a period each
    assert first["text"] == ["dact/finetune", "frozen/finetune"] and first["x"] == [0.5, 0.5]
    assert not set(first["y"]) & set(second["y"])  # equal values do not hide each other
    served = figures["share of old items: SIDs served against those served before"]
    assert served["data"][0]["y"] == [0.15, 0.15]
    drawn = [name for name in figures if "decile of drift" in name]
    assert len(drawn) == 6 and figures[drawn[0]]["data"][0]["y"] == [0.4, 0.1]


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "{", "[]"])
def test_what_is_no_report_is_named(tmp_path, capsys, content):
    assert main([str(tmp_path)]) == 2
    assert "has no report" in capsys.readouterr().err
    (tmp_path / "results.json").write_text(content)
    code = main([str(tmp_path)])
    said = capsys.readouterr().err
    assert code == 2 and "results.json" in said and "Traceback" not in said


def test_what_is_wrong_is_said_once_and_of_the_right_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no '.*nowhere'"):
        write_pages(tmp_path / "nowhere")
    (tmp_path / "results.json").write_text('[{"model": "A"')
    with pytest.raises(ConfigError, match="^'.*results.json' cannot be read as JSON"):
        write_pages(tmp_path)
    run = [{"model": "A", "dataset": "d", "test_result": MEASURED, "best_epoch": 3}]
    (tmp_path / "results.json").write_text(json.dumps(run))
    (tmp_path / "ranks-A.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ConfigError, match="ranks-A.npz"):
        write_pages(tmp_path)


def test_one_seed_and_one_bucket_are_what_they_are(tmp_path):
    one = json.loads(json.dumps({**STUDY, "seeds": [1], "baseline": None}))
    found = one["datasets"]["d"]
    found["differences"] = {}
    for row in found["metrics"]["with_history"].values():
        row["recall@10"]["seeds"] = row["recall@10"]["seeds"][:1]
    (tmp_path / "report.json").write_text(json.dumps(one))
    page = write_pages(tmp_path)[0].read_text()
    assert "seed 1<" in page and "of one seed" in page and "\u00b1" not in page.split("<script")[0]
    assert not [title for title in figures_of(page) if " by interactions" in title]
    assert ["SASRec", "6+", "10"] in [row[:3] for row in rows_of(page)]  # the table stays
