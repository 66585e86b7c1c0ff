"""What the scripts beside a study compute, against loops and closed forms."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pages import ROOT
from scipy.stats import spearmanr


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "studies" / "r3vae" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Correlation of metrics with Recall


def made(rng, n=12, noise=0.0):
    """Figures of `n` settings over three seeds, whose recall falls as `pd` rises."""
    found = {}
    for number in range(n):
        recall = 0.03 + 0.001 * number + noise * rng.normal(size=3)
        found[f"row {number}"] = {
            "recall@10": recall.tolist(),
            "pd": (-number + noise * rng.normal(size=3)).tolist(),
            "luck": rng.normal(size=3).tolist(),
        }
    return found


def test_the_correlation_is_that_of_the_ranks_of_means_over_seeds():
    metrics, rng = script("metrics"), np.random.default_rng(0)
    found = made(rng, noise=0.004)
    for figure in ("pd", "luck"):
        c = metrics.correlation(found, list(found), figure)
        means = [[np.mean(row[k]) for row in found.values()] for k in (figure, "recall@10")]
        assert c["rho"] == pytest.approx(spearmanr(*means).statistic)
        assert c["low"] <= c["rho"] <= c["high"] and c["settings"] == 12
    exact = metrics.correlation(made(rng), [f"row {n}" for n in range(12)], "pd")
    assert exact["rho"] == pytest.approx(-1) and exact["high"] < -0.99
    luck = metrics.correlation(made(rng), [f"row {n}" for n in range(12)], "luck")
    assert luck["low"] < 0 < luck["high"]
    found["row 3"]["pd"] = [None] * 3  # all items on one SID
    assert metrics.correlation(found, list(found), "pd")["settings"] == 11


def test_more_settings_detect_smaller_correlations():
    metrics, rng = script("metrics"), np.random.default_rng(0)
    assert metrics.detectable(24) < metrics.detectable(12) < 1
    # Four of five drawn samples of that true correlation are told from 0.
    n = 14
    rho = metrics.detectable(n)
    shape = [[1, 2 * np.sin(rho * np.pi / 6)], [2 * np.sin(rho * np.pi / 6), 1]]
    found = sum(
        spearmanr(*rng.multivariate_normal([0, 0], shape, n).T).pvalue < 0.05 for _ in range(400)
    )
    assert 0.7 < found / 400 < 0.9


# Cold start


def test_the_area_under_the_curve_is_that_of_all_pairs():
    cold, rng = script("cold_start"), np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 10  # with ties
    weights = [np.ones(40), rng.integers(0, 4, 40).astype(float)]
    for weight, area in zip(weights, cold.auc(labels, scores, weights)):
        won = total = 0.0
        for i in np.flatnonzero(labels == 1):
            for j in np.flatnonzero(labels == 0):
                pair = weight[i] * weight[j]
                total += pair
                won += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
        assert area == pytest.approx(won / total)


def test_differences_are_over_items_and_seeds_of_each_bucket():
    cold, rng = script("cold_start"), np.random.default_rng(0)
    n = 600
    base = {
        "item": rng.integers(0, 60, n).tolist(), "label": rng.integers(0, 2, n).tolist(),
    }  # fmt: skip
    base["seen"] = [(item % 3) * 4 for item in base["item"]]  # 0, 4 or 8 training rows
    label = np.array(base["label"])

    def run(strength):
        return {**base, "score": (strength * label + rng.normal(size=n)).tolist()}

    by_seed = {
        seed: {
            "RKMeans, SID": run(1.5), "R3VAE, SID": run(1.5), "item id": run(0.0),
        }
        for seed in ("1", "2")
    }  # fmt: skip
    figures = cold.compared(by_seed)
    assert {b: f["items"] for b, f in figures.items()} == {"0": 20, "1-5": 20, "6+": 20}
    assert sum(f["rows"] for f in figures.values()) == n
    for found in figures.values():
        rows = found["by_row"]
        mean, low, high = rows["R3VAE, SID"]["to_ids"]
        assert 0 < low < mean < high and rows["item id"]["to_ids"] is None
        low, high = rows["R3VAE, SID"]["to_rkmeans"][1:]
        assert low < 0 < high and rows["RKMeans, SID"]["to_rkmeans"] is None
        assert rows[cold.COUNTED]["auc"] == pytest.approx([0.5] * 3)  # as many in all rows here
    assert "| R3VAE, SID" in cold._page("made", figures)


def test_the_page_of_cold_start_is_that_of_its_figures():
    cold = script("cold_start")
    figures = json.loads((cold.HERE / "cold_start.json").read_text())
    assert list(figures) == list(cold.DATASETS)
    for found in figures.values():
        rows = {f"{name}, {kind}" for name in cold.TOKENIZERS for kind in cold.VARIANTS[1:]}
        rows |= {cold.VARIANTS[0], cold.COUNTED}
        assert all(set(f["by_row"]) == rows for f in found.values())
    page = "\n\n".join(cold._page(dataset, each) for dataset, each in figures.items()) + "\n"
    assert (cold.HERE / "cold_start.md").read_text() == page


def test_negatives_were_sold_before_and_never_bought():
    cold, rng = script("cold_start"), np.random.default_rng(0)
    time = rng.permutation(200)
    purchases = pd.DataFrame({
        "user_id:token": rng.integers(0, 30, 200).astype(str),
        "item_id:token": [f"i{min(t // 4, rng.integers(0, 50))}" for t in time],
        "timestamp:float": time.astype(str),
    }).drop_duplicates(["user_id:token", "item_id:token"])  # fmt: skip
    rows = cold.with_negatives(purchases)
    bought = set(zip(purchases["user_id:token"], purchases["item_id:token"]))
    assert list(rows.columns) == [
        "user_id:token", "item_id:token", "label:float", "timestamp:float"
    ]  # fmt: skip
    times = rows["timestamp:float"].astype(float)
    assert times.is_monotonic_increasing
    positives = rows[rows["label:float"] == "1"]
    assert len(positives) == len(purchases) and 0.8 < len(rows) / len(positives) / 2 <= 1
    sold = positives["timestamp:float"].astype(float).groupby(positives["item_id:token"])
    first = sold.min()
    for user, item, label, at in rows.itertuples(index=False):
        if label == "0":
            assert (user, item) not in bought and first[item] <= float(at)


# Content


def test_a_common_component_is_added_to_directions():
    contents = script("contents")
    vectors = torch.randn(400, 30, generator=torch.Generator().manual_seed(0)) * 5
    found = contents.with_common(vectors)
    unit = F.normalize(vectors, dim=1)
    mean = F.normalize(unit.mean(0), dim=0)
    assert torch.allclose(found, F.normalize(unit + 1.8 * mean, dim=1), atol=1e-6)
    assert float(found.mean(0).square().sum()) > 0.7 > 0.1 > float(unit.mean(0).square().sum())
