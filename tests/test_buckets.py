"""Metrics by training frequency: buckets, counts, and what baselines and TIGER report in them."""

import math
from types import SimpleNamespace

import pytest
import torch
from data_helpers import RATIO
from recbole.evaluator import Evaluator
from runs import rest_slow

from recbole_gr.config import Config
from recbole_gr.config.eval_buckets import bucket_names, check_edges
from recbole_gr.data import create_dataset
from recbole_gr.data.frequency import training_counts
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline import sids as pipeline
from recbole_gr.quality.assessment import Behaviour
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.trainer.buckets import ItemBuckets

CONFIG = {"topk": [1, 3], "ITEM_ID_FIELD": "item_id", "LABEL_FIELD": "label"}


def evaluator(*metrics):
    Config("Pop", "ml-100k")  # RecBole's metrics read names of numpy that its Config restores
    return Evaluator({"metrics": metrics, "topk": [1, 3], "metric_decimal_place": 10})


def test_buckets_are_named_by_the_frequencies_they_hold():
    assert bucket_names([0, 1, 6]) == ["0", "1-5", "6+"]
    assert bucket_names([0]) == ["0+"]


@pytest.mark.parametrize("edges", [[1, 6], [0, 0], [0, 6, 1], [-1, 0]])
def test_bad_edges_are_refused(edges):
    with pytest.raises(ConfigError, match="eval_buckets.*start at 0"):
        check_edges(edges)
    assert check_edges(None) == check_edges([]) == check_edges("off") == []


def test_a_row_counts_in_each_bucket_of_its_targets_with_these_targets_alone():
    counts = torch.tensor([0, 0, 3, 9, 9, 1])  # items 1 .. 5
    buckets = ItemBuckets([0, 1, 6], counts, CONFIG)
    scores = torch.tensor([[-9.0, 5, 4, 3, 2, 1], [-9.0, 1, 2, 3, 4, 5], [-9.0, 5, 4, 3, 2, 1]])
    rows, items = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 3, 4, 5, 1])
    buckets.add(scores[:2], None, rows[:4], items[:4])  # two batches
    buckets.add(scores[2:], None, rows[4:] - 2, items[4:])
    found = buckets.results(evaluator("Recall", "MRR", "ItemCoverage"))
    # Bucket 0: item 1 first for users 0 and 2. 1-5: item 5 first for user 1. 6+: items 3 and 4 of
    # user 0 stand at places 3 and 4.
    assert found["0"] == {"targets": 2, "recall@1": 1, "recall@3": 1, "mrr@1": 1, "mrr@3": 1}
    assert found["1-5"]["targets"] == 1 and found["1-5"]["recall@1"] == 1
    assert found["6+"]["targets"] == 2
    assert found["6+"]["recall@3"] == 0.5 and found["6+"]["mrr@3"] == pytest.approx(1 / 3)


def test_labelled_rows_count_in_the_bucket_of_their_item():
    buckets = ItemBuckets([0, 1, 2], torch.tensor([0, 0, 1, 5]), CONFIG)
    rows = {"item_id": torch.tensor([1, 2, 2, 2, 2, 1]), "label": torch.tensor([1, 1, 0, 1, 0, 1])}
    scores = torch.tensor([0.9, 0.8, 0.3, 0.4, 0.6, 0.5])
    buckets.add(scores, rows, None, None)
    found = buckets.results(evaluator("AUC", "LogLoss"))
    assert found["1"]["targets"] == 4 and found["1"]["auc"] == pytest.approx(0.75)
    expected = -sum(map(math.log, (0.8, 0.7, 0.4, 0.4))) / 4
    assert found["1"]["logloss"] == pytest.approx(expected, rel=1e-5)
    assert "auc" not in found["0"] and found["0"]["logloss"] > 0  # one class alone has no AUC
    assert found["2+"] == {"targets": 0}


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, RATIO["split"]])
def test_general_and_sequential_models_count_the_same_training_interactions(
    tiny_folder, split, in_tmp
):
    options = {"data_path": str(tiny_folder), "eval_args": {"split": split}}
    counts = []
    for model in ("BPR", "SASRec"):
        config = Config(model, "tiny", config_dict=options)
        train = create_dataset(config).build()[0]
        tokens = train.id2token("item_id", torch.arange(train.item_num).numpy())
        counts.append(dict(zip(tokens, training_counts(train).tolist())))
    if "LS" in split:
        assert counts[0] == counts[1]
    assert sum(counts[0].values()) > 0 and counts[0]["[PAD]"] == 0
    with open(tiny_folder / "tiny" / "tiny.inter") as file:
        rows = [line.split("\t") for line in file][1:]
    by_user = {}
    for user, item, *_ in sorted(rows, key=lambda row: (row[0], float(row[3]))):
        by_user.setdefault(user, []).append(item)
    if "LS" in split:
        kept = [item for items in by_user.values() for item in items[:-2]]
        assert counts[0] == {"[PAD]": 0, **{i: kept.count(i) for i in counts[0] if i != "[PAD]"}}


@pytest.mark.parametrize("model", rest_slow("TIGER", "SASRec", "BPR", "Pop"))
def test_buckets_of_every_model_add_up_to_the_whole(model, tiny_folder, in_tmp):
    from runs import SMALL

    options = {"data_path": str(tiny_folder), "epochs": 1, "show_progress": False,
               "eval_buckets": [0, 12, 15], "metric_decimal_place": 8}  # fmt: skip
    if model == "TIGER":
        options = {**SMALL, **options, "codebook_size": 8, "content_dim": 8}
    result = run_recbole_gr(model, "tiny", config_dict=options)
    buckets = result["test_buckets"]
    assert list(buckets) == ["0-11", "12-14", "15+"]
    assert sum(part["targets"] for part in buckets.values()) == 60
    assert min(part["targets"] for part in buckets.values()) > 0
    for name, value in result["test_result"].items():
        mean = sum(part["targets"] * part[name] for part in buckets.values()) / 60
        assert mean == pytest.approx(value, abs=1e-6), name
    page = open(result["files"]["md"]).read()
    assert "By the number of training interactions" in page and page.count(f"\n| {model}") == 5
    assert result["bucket_table"].count("\n") == 4


def test_click_through_models_report_auc_and_log_loss_by_bucket(tiny_folder, in_tmp):
    options = {"data_path": str(tiny_folder), "epochs": 1, "show_progress": False,
               "threshold": {"rating": 3}, "eval_buckets": [0, 14]}  # fmt: skip
    result = run_recbole_gr("DeepFM", "tiny", config_dict=options)
    parts = result["test_buckets"].values()
    assert sum(part["targets"] for part in parts) == result["test_targets"]["count"]
    loss = sum(part["targets"] * part["logloss"] for part in parts)
    assert loss / result["test_targets"]["count"] == pytest.approx(
        result["test_result"]["logloss"], abs=1e-3
    )


def test_buckets_can_be_switched_off(tiny_folder, in_tmp):
    options = {"data_path": str(tiny_folder), "eval_buckets": None, "show_progress": False}
    result = run_recbole_gr("Pop", "tiny", config_dict=options)
    assert result["test_buckets"] is None and result["bucket_table"] == ""
    with pytest.raises(ConfigError, match="eval_buckets"):
        Config("Pop", "tiny", config_dict={**options, "eval_buckets": "[5, 1]"})


# fit_items


def test_a_tokenizer_may_be_kept_from_items_without_training_interactions(tmp_path, monkeypatch):
    from recbole_gr.tokenizer.rkmeans import RKMeans

    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(31, 6, generator=generator)
    content = SimpleNamespace(
        vectors=vectors, digest="c", item_tokens=["[PAD]", *map(str, range(30))]
    )
    counts = torch.arange(30) % 3  # every third item is unseen
    behaviour = Behaviour(counts, torch.tensor([[1, 2]]))
    config = {"tokenizer": "RKMeans", "codebook_size": 4, "sid_dir": str(tmp_path),
              "show_progress": False, "device": "cpu"}  # fmt: skip
    fitted_on, fit = [], RKMeans.fit_content

    def spy(self, content, signals, progress):
        fitted_on.append((content, signals))
        return fit(self, content, signals, progress)

    monkeypatch.setattr(RKMeans, "fit_content", spy)
    pairs = torch.tensor([[1, 2], [2, 4], [0, 1], [29, 28]])
    signals = lambda: {"item_pairs": pairs, "weight": torch.arange(30)}  # noqa: E731
    for which in ("all", "train"):
        settings = {**config, "fit_items": which}
        table, _ = pipeline.prepare_sid(settings, content, signals, behaviour)
        assert table.n_items == 31
    (every, _), (seen, given) = fitted_on
    assert torch.equal(every, vectors[1:]) and torch.equal(seen, vectors[1:][counts > 0])
    rows = torch.arange(30)[counts > 0]
    assert given["weight"].tolist() == rows.tolist()
    assert rows[given["item_pairs"]].tolist() == [[1, 2], [2, 4], [29, 28]]
    pipeline.prepare_sid({**config, "fit_items": "train"}, content, signals, behaviour)
    assert len(fitted_on) == 2  # from the cache
    with pytest.raises(ConfigError, match="fit_items=train needs training interactions"):
        pipeline.prepare_sid({**config, "fit_items": "train"}, content, signals)
