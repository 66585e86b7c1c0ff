"""The drift report on a hand-made case, against slow references, and on DACT's own tables."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr.continual.drift_report import (
    change_by_decile,
    collaborative_drift,
    drift_report,
    plot_drift,
    rank_correlation,
)
from recbole_gr.errors import ConfigError

TOOLS = Path(__file__).parents[2] / "shared" / "data" / "Amazon_Tools_DACT"


def test_drift_is_one_minus_the_cosine_and_undefined_for_unknown_items():
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    now = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, -1.0], [1.0, 0.0], [0.0, 0.0]])
    drift = collaborative_drift(before, now).tolist()
    assert drift[:3] == pytest.approx([0, 1, 2])
    assert math.isnan(drift[3]) and math.isnan(drift[4])


@pytest.mark.parametrize("n", [0, 1, 7, 10, 103])
def test_groups_are_a_sort_cut_into_ten(n):
    generator = torch.Generator().manual_seed(n)
    values = (torch.rand(n, generator=generator) * 20).floor()  # with ties
    changed = torch.rand(n, generator=generator) < 0.4
    groups = change_by_decile(values, changed)
    assert sum(group["items"] for group in groups) == n and len(groups) == min(n, 10)
    ranked = sorted(range(n), key=lambda i: (-values[i], i))
    for group in groups:
        mine, ranked = ranked[: group["items"]], ranked[group["items"] :]
        assert group["highest"] == values[mine[0]] and group["lowest"] == values[mine[-1]]
        assert group["change_rate"] == pytest.approx(sum(map(int, changed[mine])) / len(mine))
    sizes = [group["items"] for group in groups]
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_files_tell_each_item_and_each_decile(tmp_path):
    angles = torch.linspace(0, math.pi, 20)  # item i turns by this angle
    before = torch.tensor([[1.0, 0.0]]).repeat(20, 1)
    now = torch.cat([torch.stack([angles.cos(), angles.sin()], 1), torch.ones(3, 2)])
    before[4] = 0
    changed = torch.arange(20) >= 15
    confidence = torch.arange(23.0).flip(0) / 23
    tokens = [f"i{number}" for number in range(20)]
    figures, files = drift_report(tmp_path / "out", tokens, before, now, changed, confidence)
    assert figures["n_items"] == 20 and figures["change_rate"] == 0.25
    assert figures["without_vector"] == 1
    # 19 items with vectors: nine groups of two, one of one; the five changed ones drifted most.
    rates = [group["change_rate"] for group in figures["by_cf_drift"]]
    assert rates == [1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0]
    assert [g["change_rate"] for g in figures["by_confidence"]] == [0] * 7 + [0.5, 1, 1]
    drift = sorted(1 - math.cos(float(angle)) for n, angle in enumerate(angles) if n != 4)
    assert figures["median_drift"] == pytest.approx(drift[9], abs=1e-6)
    # Item i drifts by its angle and has the confidence (22 - i) / 23: 19 and 18 are the first two.
    sure = [group["confidence"] for group in figures["by_cf_drift"]]
    assert sure[0] == pytest.approx(3.5 / 23) and sure[-1] == pytest.approx(22 / 23)
    assert figures["confidence_and_drift"] == pytest.approx(-1)
    assert figures["confidence_deviation"] == pytest.approx(float(confidence[:20].std()))
    assert json.loads(files["json"].read_text()) == figures
    with open(files["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["item", "cf_drift", "drift_confidence", "changed"]
    assert [row["item"] for row in rows] == tokens and rows[4]["cf_drift"] == ""
    for number, row in enumerate(rows):
        assert row["changed"] == str(int(number >= 15))
        assert float(row["drift_confidence"]) == pytest.approx(float(confidence[number]), rel=1e-5)
        if number != 4:
            expected = 1 - math.cos(float(angles[number]))
            assert float(row["cf_drift"]) == pytest.approx(expected, abs=1e-5)
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_without_confidence_and_without_vectors(tmp_path):
    zero = torch.zeros(3, 2)
    changed = torch.tensor([True, False, False])
    figures, files = drift_report(tmp_path, ["a", "b", "c"], zero, zero, changed)
    assert figures["by_cf_drift"] == [] and figures["by_confidence"] is None
    assert figures["median_drift"] is None
    assert figures["without_vector"] == 3 and all(path.is_file() for path in files.values())
    assert "confidence" not in files["csv"].read_text()


def test_the_figure_says_how_large_the_drift_is_and_warns_where_there_is_none(tmp_path, caplog):
    changed = torch.arange(40) % 2 == 0
    before = torch.tensor([[1.0, 0.0]]).repeat(40, 1)
    for angle, said in ((0.05, True), (0.5, False)):
        caplog.clear()
        turns = angle * torch.linspace(0.9, 1.1, 40)
        now = torch.stack([turns.cos(), turns.sin()], 1)
        folder = tmp_path / str(angle)
        figures, _ = drift_report(folder, [f"i{n}" for n in range(40)], before, now, changed)
        assert figures["median_drift"] == pytest.approx(1 - math.cos(angle), rel=0.05)
        assert ("no collaborative drift" in caplog.text) is said
        title = plot_drift(figures).axes[0].get_title()
        assert f"{figures['median_drift']:.2g}" in title and ("no drift" in title) is said


def test_rank_correlation_is_that_of_the_places():
    first = torch.tensor([3.0, 1.0, torch.nan, 2.0, 9.0])
    assert rank_correlation(first, torch.tensor([30.0, 1.0, 5.0, 2.0, 31.0])) == pytest.approx(1)
    # Places 2 0 1 3 against 0 1 2 3: 1 - 6 (4 + 1 + 1) / (4 * 15).
    assert rank_correlation(first, torch.tensor([0.0, 1.0, 5.0, 2.0, 3.0])) == pytest.approx(0.4)
    assert rank_correlation(first, torch.ones(5)) is None
    assert rank_correlation(first[:3], torch.tensor([1.0, torch.nan, 1.0])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"before": torch.ones(4, 2)},
        {"now": torch.ones(2, 2)},
        {"now": torch.ones(3, 5)},
        {"changed": torch.ones(2).bool()},
        {"confidence": torch.ones(2)},
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change):
    given = {
        "item_tokens": ["a", "b", "c"], "before": torch.ones(3, 2), "now": torch.ones(3, 2),
        "changed": torch.ones(3).bool(), **change,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="drift report of 3 items.*do not fit"):
        drift_report(tmp_path, **given)


@pytest.mark.skipif(not TOOLS.is_dir(), reason="the published Tools tables are not beside this")
def test_the_change_rates_of_the_published_tables(tmp_path):
    def read(name):
        path = TOOLS / f"Amazon_Tools_DACT.{name}.npy"
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float64))

    first, second = read("sid_0.6"), read("sid_0.7.dact")
    n = len(first)
    changed = (second[:n] != first).any(1)
    tokens = [str(number) for number in range(1, n + 1)]
    before, now = read("itemcf_0.6")[:n], read("itemcf_0.7")
    figures, _ = drift_report(tmp_path, tokens, before, now, changed)
    rates = [round(100 * group["change_rate"], 1) for group in figures["by_cf_drift"]]
    assert rates == [40.6, 31.9, 27.1, 27.3, 22.9, 21.4, 18.0, 17.6, 12.8, 16.8]
    assert all(group["items"] == 961 for group in figures["by_cf_drift"])
    assert figures["change_rate"] == pytest.approx(2_271 / 9_610)
    assert figures["median_drift"] == pytest.approx(0.14, abs=0.04)
