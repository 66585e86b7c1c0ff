"""What a study's report says beside its rankings: log-likelihoods, and targets tied in time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr.quality.measures import quality_report
from recbole_gr.sid.table import SIDTable
from recbole_gr.study.buckets import by_ties
from recbole_gr.study.comparison import compare
from recbole_gr.study.curves import curves_of, mean_curve, plot_curves
from recbole_gr.study.plan import Cell, Study
from recbole_gr.study.provenance import provenance_of
from recbole_gr.study.report import write_study_report
from recbole_gr.study.sids import sid_figures_of, sid_table
from recbole_gr.study.store import Finished, keep

USERS = np.array([f"u{n}" for n in range(40)])
TIED = np.arange(40) % 4 == 0


def run_of(rng, ahead=0.0, **arrays):
    """A run over 40 users in an order of its own; of tied targets only does it find any."""
    order = rng.permutation(40)
    ranks = {
        "with_history": np.where(TIED, np.arange(40) % 3, -1).astype(np.int32),
        "log_likelihood": (-np.arange(40) / 8 - 1 + ahead).astype(np.float32),
        "tied": TIED,
        **arrays,
    }
    ranks = {name: values[order] for name, values in ranks.items() if values is not None}
    return {
        "test_result": {"recall@1": 0.1, "ndcg@2": 0.1, "mrr@2": 0.1},
        "test_result_without_history": None, "test_buckets": None,
        "test_targets": {"count": 40, "digest": "same"}, "epochs_run": 1, "resumed": False,
        "seconds_per_epoch": 0.1, "seconds_total": 0.1, "parameters": 1, "peak_memory_bytes": None,
        "test_ranks": {
            "user": order.astype(np.int32), "user_token": USERS[order],
            "item": np.ones(40, np.int32), "item_token": np.full(40, "i"), **ranks,
        },
    }  # fmt: skip


@pytest.fixture
def kept(tmp_path):
    """A function from the result of a run to what a study finds of it."""

    def kept(result):
        from recbole_gr.study.ranks import load_ranks

        keep(tmp_path, result, "key", resumed=False)
        return Finished(result, load_ranks(tmp_path / "ranks.npz"), tmp_path)

    return kept


@pytest.fixture
def runs(kept):
    """By row and seed; `better` gives every target 0.25 nats more, `counts` gives no likelihood."""
    rng = np.random.default_rng(0)
    return {
        "base": {seed: kept(run_of(rng)) for seed in (1, 2)},
        "better": {seed: kept(run_of(rng, 0.25 + seed / 100)) for seed in (1, 2)},
        "counts": {seed: kept(run_of(rng, log_likelihood=None)) for seed in (1, 2)},
    }


def test_the_log_likelihood_is_averaged_and_paired_by_user(runs):
    found = compare(runs, "base")
    assert found.means["log_likelihood"]["base"] == {
        "log_likelihood": [pytest.approx(-1 - 39 / 16)] * 2
    }
    difference = found.differences["log_likelihood"]["better"]["log_likelihood"]
    assert difference.mean == pytest.approx(0.265) and difference.users == 40
    assert 0 < difference.low < 0.265 < difference.high and difference.verdict == "ahead"
    assert "counts" not in found.means["log_likelihood"] and found.remarks == []
    assert "counts" not in found.differences["log_likelihood"]
    assert found.differences["with_history"]["counts"]["recall@1"].mean == 0


def test_a_target_of_probability_0_leaves_no_mean(runs, kept):
    never = np.full(40, -1.0, np.float32)
    never[7] = -np.inf
    runs["better"][2] = kept(run_of(np.random.default_rng(1), log_likelihood=never))
    found = compare(runs, "base")
    (remark,) = found.remarks
    assert remark.startswith("better has runs without a mean log-likelihood")
    assert "better" not in found.means["log_likelihood"]  # no mean of the seeds that have one
    assert "log_likelihood" not in found.differences
    assert "better" in found.differences["with_history"]


def test_scores_that_are_no_logarithms_leave_no_mean_and_say_so(runs, kept):
    runs["better"][2] = kept(run_of(np.random.default_rng(1), log_likelihood=None))
    found = compare(runs, "base")
    (remark,) = found.remarks
    assert remark.startswith("better has no mean log-likelihood") and "(seeds: 2)" in remark
    assert "better" not in found.means["log_likelihood"]
    assert "log_likelihood" not in found.differences


def test_targets_are_told_apart_by_ties(runs):
    lines = {(row, name): (n, values) for row, name, n, values in by_ties(runs)}
    places = np.arange(40)[TIED] % 3
    n, values = lines["base", "tied"]
    assert n == 10 and set(values) == {"recall@1", "ndcg@2", "log_likelihood"}  # not of MRR
    assert values["recall@1"] == [pytest.approx(np.mean(places == 0))] * 2
    gains = np.where(places < 2, 1 / np.log2(places + 2), 0)
    assert values["ndcg@2"] == [pytest.approx(gains.mean())] * 2
    assert values["log_likelihood"] == [pytest.approx(-1 - np.arange(40)[TIED].mean() / 8)] * 2
    n, values = lines["counts", "untied"]
    assert n == 30 and values == {"recall@1": [0, 0], "ndcg@2": [0, 0]}
    assert by_ties({"row": {1: Finished(run_of(np.random.default_rng(0)), None, Path())}}) == []


def test_the_report_shows_both(runs, tmp_path):
    rows = {row: {"model": "SASRec"} for row in runs}
    study = Study("mine", rows, ["tiny"], [1, 2], {}, "base", {})
    results = {
        Cell(row, "SASRec", "tiny", seed, {}, f"{row}{seed}"): kept
        for row, by_seed in runs.items()
        for seed, kept in by_seed.items()
    }
    report = write_study_report(study, results, {}, tmp_path, {}, provenance_of(results))
    assert "mean log-likelihood of the target in nats" in report["table"]
    assert "-3.4375 ± 0.0000" in report["table"] and "untied" in report["table"]
    with open(report["files"]["json"]) as file:
        read = json.load(file)["datasets"]["tiny"]
    assert [line[:3] for line in read["ties"]][:2] == [["base", "tied", 10], ["base", "untied", 30]]
    with open(report["files"]["csv"]) as file:
        lines = [line for line in file if ",log_likelihood,better," in line]
    assert len(lines) == 1 and ",ahead," in lines[0]


def test_the_sids_of_rows_stand_in_the_report_as_means_over_seeds(tmp_path):
    """Kept with each run from the report of its SIDs; a figure is shown that all seeds have."""
    found = {}
    for seed, n_codes in ((1, 4), (2, 8)):
        codes = (torch.arange(40) % n_codes)[:, None].expand(-1, 2)
        report = quality_report(SIDTable.from_item_codes(codes, (8, 8)))
        if seed == 1:
            report.semantics = {"sc": 0.5}
        sid = json.loads(json.dumps(report.to_dict()))
        keep(tmp_path, {**run_of(np.random.default_rng(seed)), "sid": sid}, "key", resumed=False)
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["sid_figures"]["distinct"] == n_codes / 40
        found[seed] = Finished(result, None, tmp_path)
    plain = Finished({**found[1].result, "sid_figures": None}, None, tmp_path)
    figures = sid_figures_of({"TIGER": found, "SASRec": {1: plain}})
    assert list(figures) == ["TIGER"] and figures["TIGER"]["distinct"] == [0.1, 0.2]
    assert figures["TIGER"]["perplexity"] == pytest.approx([4, 8]) and "sc" not in figures["TIGER"]
    row = sid_table(figures).splitlines()[2]
    assert row.startswith("| TIGER") and "15.00%" in row and "6.0" in row


def test_curves_are_means_over_the_epochs_that_all_seeds_validated(kept):
    first = [[0, 0.1], [2, 0.3], [4, 0.4]]
    second = [[0, 0.3], [2, 0.5]]
    runs = {"a": {1: first, 2: second}, "b": {1: [[0, 0.2]]}, "earlier": {1: None}}
    found = curves_of(
        {
            row: {
                seed: kept({**run_of(np.random.default_rng(0)), "valid_curve": curve})
                for seed, curve in by_seed.items()
            }
            for row, by_seed in runs.items()
        }
    )
    assert found == {"a": {1: first, 2: second}}  # a point is no curve
    epochs, means = mean_curve(found["a"])
    assert epochs == [0, 2] and means == pytest.approx([0.2, 0.4])
    panel = plot_curves({"tiny": found, "none": {}}).axes[0]
    assert [list(line.get_xdata()) for line in panel.get_lines()] == [[0, 2], [0, 2, 4], [0, 2]]
    assert plot_curves({"none": {}}) is None
