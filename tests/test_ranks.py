"""Ranks of single targets, with the user's history in the ranking and without it, from one pass."""

import json
import math

import numpy as np
import process_bodies
import pytest
import torch
from data_helpers import RATIO, rows_by_user
from recbole.trainer import Trainer
from runs import RUNS, arguments
from tiny import read_sequences, write_tiny_dataset

from recbole_gr import load_data_and_model, registry
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.distributed.launch import run_processes
from recbole_gr.generation.beam_search import Beams
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.trainer import ranks as ranks_module
from recbole_gr.trainer.places import distinct, ranks_by_scores, ranks_in_lists
from recbole_gr.trainer.ranks import ranks_for

EVERY = 100  # more beams than SIDs
DIGITS = {"metric_decimal_place": 12, "metrics": ["Recall", "NDCG", "MRR", "Hit"]}
OWN = {"IntRR": {"uid_size": 12, "ran_hidden_size": 24}, "PIT": RUNS["PIT"][1]}
OWN |= {"RPG": {}, "TIGER": {}}


def place(scores, item, without=()):
    """The place of an item among those of scores above -inf, by a loop."""
    if item in without or scores[item] == -math.inf:
        return -1
    above = 0
    for other, score in enumerate(scores):
        if other not in without and (-score, other) < (-scores[item], item):
            above += 1
    return above


def places(scores, histories, users, items):
    rows = [row.tolist() for row in scores]
    past = [set(history.tolist()) - {0} for history in histories]
    pairs = list(zip(users.tolist(), items.tolist()))
    return [place(rows[u], i) for u, i in pairs], [place(rows[u], i, past[u]) for u, i in pairs]


def measures(ranks, topk=(5, 10)):
    """Recall, NDCG, MRR and Hit of users with one target each, by their definitions."""
    figures = {}
    for k in topk:
        found = [1 / math.log2(rank + 2) if 0 <= rank < k else 0.0 for rank in ranks.tolist()]
        first = [1 / (rank + 1) if 0 <= rank < k else 0.0 for rank in ranks.tolist()]
        figures[f"recall@{k}"] = figures[f"hit@{k}"] = float(np.mean(np.array(found) > 0))
        figures[f"ndcg@{k}"], figures[f"mrr@{k}"] = float(np.mean(found)), float(np.mean(first))
    return {name: round(value, 12) for name, value in figures.items()}


def some_scores(n_values):
    """Scores with ties and items that are not ranked, histories with repeats, several targets."""
    generator = torch.Generator().manual_seed(n_values)
    scores = torch.randint(n_values, (40, 30), generator=generator).float()
    scores[torch.rand(40, 30, generator=generator) < 0.2] = -math.inf
    scores[:, 0] = -math.inf
    histories = torch.randint(30, (40, 12), generator=generator)
    users = torch.randint(40, (70,), generator=generator)
    return scores, histories, users, torch.randint(1, 30, (70,), generator=generator)


@pytest.mark.parametrize("n_values", [3, 1000])
def test_a_rank_counts_higher_scores_and_equal_ones_of_lower_ids(n_values):
    scores, histories, users, items = some_scores(n_values)
    expected = places(scores, histories, users, items)
    assert -1 in expected[0] and 0 in expected[0] and max(expected[0]) > 15
    found = ranks_by_scores(scores, distinct(histories), users, items)
    assert tuple(ranks.tolist() for ranks in found) == expected
    alone = torch.arange(40)  # a target in each row, as sequential models have them
    expected = places(scores, histories, alone, items[:40])
    found = ranks_by_scores(scores, distinct(histories), alone, items[:40])
    assert tuple(ranks.tolist() for ranks in found) == expected


def test_a_rank_in_a_list_is_a_place_less_the_places_of_the_history_before_it():
    scores, histories, users, items = some_scores(1000)
    order = scores.argsort(dim=1, descending=True, stable=True)
    lists = order.masked_fill(scores.gather(1, order) == -math.inf, 0)
    expected = places(scores, histories, users, items)
    found = ranks_in_lists(lists, histories, users, items)
    assert tuple(ranks.tolist() for ranks in found) == expected
    found = ranks_in_lists(lists[:, :7], histories, users, items)
    for ranks, whole in zip(found, expected):  # what is still in the list has its own place
        there = [0 <= full < 7 for full in expected[0]]
        assert ranks.tolist() == [r if kept else -1 for r, kept in zip(whole, there)]


def evaluated(trainer, config, loaders):
    """Metrics, the arrays of ranks, and metrics without history, of the test."""
    train, valid, test = loaders
    trainer.eval_collector.data_collect(train)
    trainer.ranks = ranks_for(config, trainer.model, (train, valid), test)
    result = dict(trainer.evaluate(test, load_best_model=False))
    without = trainer.ranks.results(trainer.evaluator)
    return result, trainer.ranks.arrays(test._dataset), without


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_ranks_of_recboles_models_are_those_of_a_loop_over_all_scores(
    model, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ranks_module, "TOGETHER", 7)
    settings = {**RUNS.get(model, (model, {}))[1], **DIGITS, "eval_batch_size": 100}
    result = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **settings))
    ranks = result["test_ranks"]
    kinds = {a.dtype.name for name, a in ranks.items() if "token" not in name}
    assert kinds == {"int32", "bool"} and ranks["tied"].sum() == result["test_targets"]["tied"]
    config, network, dataset, *loaders = load_data_and_model(
        result["checkpoint"], show_progress=False
    )
    sequences = read_sequences(tiny_folder)
    for row, user in enumerate(ranks["user_token"].tolist()):
        *history, target = sequences[user]
        assert ranks["item_token"][row] == target
        assert dataset.token2id("user_id", user) == ranks["user"][row]
        if model == "SASRec":
            history = history[-config["MAX_ITEM_LIST_LENGTH"] :]
            length = torch.tensor([len(history)])
            items = torch.zeros(1, config["MAX_ITEM_LIST_LENGTH"]).long()
            items[0, : len(history)] = torch.tensor(dataset.token2id("item_id", history))
            batch = {"item_id_list": items, "item_length": length}
        else:
            batch = {"user_id": torch.tensor([ranks["user"][row]]).long()}
        with torch.no_grad():
            scores = network.full_sort_predict(batch).flatten()
        scores[0] = -math.inf
        past = set(dataset.token2id("item_id", history).tolist())
        item = int(ranks["item"][row])
        assert ranks["with_history"][row] == place(scores.tolist(), item)
        assert ranks["without_history"][row] == place(scores.tolist(), item, past)
    assert result["test_result"] == measures(ranks["with_history"])
    assert result["test_result_without_history"] == measures(ranks["without_history"])
    assert result["test_result"] != result["test_result_without_history"]

    trainer = registry.get_trainer(config, config.model_class)(config, network)
    if model == "SASRec":  # RecBole has no switch for it; its scores are masked here
        predict = network.full_sort_predict
        network.full_sort_predict = lambda batch: predict(batch).scatter(
            1, batch["item_id_list"], -math.inf
        )
        masked = Trainer.evaluate(trainer, loaders[-1], load_best_model=False)
        assert dict(masked) == result["test_result_without_history"]
        return
    left_out = Config(cmd_args=[*arguments(model, tiny_folder, **settings), "--repeatable=False"])
    loaders = data_preparation(left_out, create_dataset(left_out))
    trainer = registry.get_trainer(left_out, left_out.model_class)(left_out, network)
    masked, again, without = evaluated(trainer, left_out, loaders)
    assert masked == without == result["test_result_without_history"]
    assert "with_history" not in again
    assert again["without_history"].tolist() == ranks["without_history"].tolist()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("model", OWN)
def test_a_beam_over_all_items_gives_the_ranks_of_the_exact_scores(
    parts, model, shared, monkeypatch
):
    monkeypatch.setattr(ranks_module, "AT_ONCE", 1000)  # a few users
    options = {**OWN[model], **DIGITS, "beam_size": EVERY, "eval_exact": True}
    config, trainer, *loaders = parts(shared, model, **options, eval_batch_size=17)
    result, ranks, without = evaluated(trainer, config, loaders)
    test = rows_by_user(loaders[-1])
    with torch.no_grad():
        scores = trainer.model.exact(test)
    rows = torch.arange(len(test))
    expected = places(scores, test["item_id_list"], rows, test["item_id"])
    assert ranks["user"].tolist() == test["user_id"].tolist()
    assert ranks["item"].tolist() == test["item_id"].tolist()
    for name, values in zip(("with_history", "without_history"), expected):
        assert ranks[f"exact_{name}"].tolist() == values
        if not shared:
            assert ranks[name].tolist() == values
    # Of items that share their SIDs the list holds as many as there are beams; RPG has all scores.
    listed = [value if value < 20 or model == "RPG" else -1 for value in expected[0]]
    assert not shared or model == "PIT" or ranks["with_history"].tolist() == listed
    assert result == measures(ranks["with_history"])
    assert without == measures(ranks["without_history"])

    trainer.model.exclude_history = True
    left_out, again, the_same = evaluated(trainer, config, loaders)
    assert left_out == the_same == without != result
    assert {name for name in again if "history" in name} == {
        "without_history", "exact_without_history"
    }  # fmt: skip
    assert again["exact_without_history"].tolist() == expected[1]


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_intrr_that_scores_all_items_ranks_all_of_them_with_few_beams(parts, exclude, asked):
    options = {**OWN["IntRR"], **DIGITS, "decoding": "exact", "exclude_history": exclude}
    config, trainer, *loaders = parts(model="IntRR", **options, eval_exact=asked)
    result, ranks, without = evaluated(trainer, config, loaders)
    test = rows_by_user(loaders[-1])
    with torch.no_grad():
        scores = trainer.model.exact(test)
    rows = torch.arange(len(test))
    expected = places(scores, test["item_id_list"], rows, test["item_id"])
    assert max(expected[1]) > trainer.model.beam_size
    for name, values in zip(("with_history", "without_history"), expected):
        for key in (name, f"exact_{name}"):
            there = ranks[key].tolist() if key in ranks else None
            missing = (exclude and name == "with_history") or (key != name and not asked)
            assert there == (None if missing else values)
    assert result == measures(np.array(expected[int(exclude)]))
    assert without == measures(ranks["without_history"])


def test_items_that_pit_fills_its_list_with_have_their_places_too(parts):
    config, trainer, *loaders = parts(model="PIT", **OWN["PIT"])
    model, search, found = trainer.model, trainer.model.search, {}

    def two_beams(batch, beam_size=None):
        nodes, scores, codes, _ = search(batch, beam_size)
        dead = torch.arange(nodes.shape[1]) >= 2
        first = model.trie.items(nodes[:, :2])[..., 0]
        found.update(zip(batch["user_id"].tolist(), first.tolist()))
        return Beams(nodes.masked_fill(dead, -1), scores.masked_fill(dead, -math.inf), codes)

    model.search = two_beams
    _, ranks, _ = evaluated(trainer, config, loaders)
    test = rows_by_user(loaders[-1])
    histories = test["item_id_list"].tolist()
    for row, (user, item) in enumerate(zip(test["user_id"].tolist(), test["item_id"].tolist())):
        first = found[user]
        tail = [other for other in model.tail.tolist() if other not in first]
        listed = [*first, *tail][: model.beam_size]
        new = [other for other in listed if other not in histories[row]]
        for name, items in (("with_history", listed), ("without_history", new)):
            assert ranks[name][row] == (items.index(item) if item in items else -1)
    assert (ranks["with_history"] > 2).any() and (ranks["with_history"] == -1).any()


@pytest.mark.parametrize("model", OWN)
@pytest.mark.parametrize("options", [{}, {"beam_size": 10}, {"exclude_history": True}])
def test_collecting_ranks_changes_no_figure(parts, model, options):
    settings = {**OWN[model], **options, "metrics": ["Recall", "NDCG", "ItemCoverage"]}
    for shared in (False, True):
        config, trainer, *loaders = parts(shared, model, **settings)
        with_ranks, _, without = evaluated(trainer, config, loaders)
        figures, trainer.ranks = trainer.generation_figures, None
        assert dict(trainer.evaluate(loaders[-1], load_best_model=False)) == with_ranks
        assert trainer.generation_figures == figures
        assert set(without) == {name for name in with_ranks if "coverage" not in name}


def test_metrics_that_need_every_score_leave_the_ranks_what_they_are(parts):
    _, ranks, found = evaluated_with(parts, metrics=["Recall", "NDCG"])
    result, dense, without = evaluated_with(parts, metrics=["Recall", "NDCG", "GAUC"])
    assert "gauc" in result and without == found
    assert {name: values.tolist() for name, values in dense.items()} == {
        name: values.tolist() for name, values in ranks.items()
    }


def evaluated_with(parts, **options):
    config, trainer, *loaders = parts(**options, eval_exact=True)
    return evaluated(trainer, config, loaders)


def test_several_targets_of_a_user_count_as_recbole_counts_them(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = {"eval_args": {"split": RATIO["split"]}, **DIGITS, "metrics": ["Recall", "NDCG", "MAP"]}
    settings = {"data_path": str(tiny_folder), "epochs": 1, "show_progress": False}
    config = Config("BPR", "tiny", config_dict={**settings, **split, "repeatable": False})
    loaders = data_preparation(config, create_dataset(config))
    model = config.model_class(config, loaders[0]._dataset)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    result, ranks, without = evaluated(trainer, config, loaders)
    assert len(ranks["user"]) > len(set(ranks["user"].tolist())) and without == result


def test_a_report_has_both_protocols_and_the_ranks_in_a_file_of_their_own(trained):
    result = trained("TIGER")
    folder = result["files"]["md"].rpartition("/")[0]
    with np.load(f"{folder}/ranks-TIGER.npz", allow_pickle=False) as file:
        kept = dict(file)
    assert kept.keys() == result["test_ranks"].keys()
    assert all((kept[name] == result["test_ranks"][name]).all() for name in kept)
    with open(result["files"]["json"]) as file:
        (plain,) = json.load(file)
    assert "test_ranks" not in plain
    assert plain["test_result_without_history"] == result["test_result_without_history"]
    with open(result["files"]["manifest"]) as file:
        assert "test_ranks" not in json.load(file)["runs"][0]
    with open(result["files"]["md"]) as file:
        page = file.read()
    table = page.partition("history of each user left out of the ranking:\n\n")[2]
    recall = result["test_result_without_history"]["recall@10"]
    assert f"{recall:.4f}" in table.splitlines()[2]


@pytest.mark.parametrize("mode", ["uni20", "labeled"])
def test_where_not_all_items_are_ranked_there_are_no_ranks(mode, tiny_folder):
    split = {"RS": [0.8, 0.1, 0.1]} if mode == "labeled" else {"LS": "valid_and_test"}
    options = {"data_path": str(tiny_folder), "eval_args": {"split": split, "mode": mode}}
    if mode == "labeled":
        options.update(metrics=["AUC"], valid_metric="AUC", threshold={"rating": 3})
    model = "LR" if mode == "labeled" else "SASRec"
    config = Config(model, "tiny", config_dict=options)
    train, valid, test = data_preparation(config, create_dataset(config))
    assert ranks_for(config, None, (train, valid), test) is None


@pytest.mark.slow
def test_two_processes_collect_the_ranks_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_tiny_dataset(tmp_path / "data", "odd", 61, 40, 1)
    tiger = ("TIGER", {**RUNS["TIGER"][1], "eval_exact": True})
    table = {"TIGER": tiger, "SASRec": RUNS["SASRec"], "BPR": ("BPR", {"topk": [5, 10]})}
    more = {"eval_batch_size": 7, "eval_likelihood": True}
    requests = {
        name: arguments(model, data, "odd", **{**own, **more})
        for name, (model, own) in table.items()
    }
    together = run_processes(process_bodies.runs, (str(tmp_path), requests), {"nproc": 2})
    for name in table:
        ranks = together[name]["test_ranks"]
        assert len(ranks["user"]) == 61
        config, model, _, *loaders = load_data_and_model(
            together[name]["checkpoint"], show_progress=False
        )
        trainer = registry.get_trainer(config, config.model_class)(config, model)
        _, alone, without = evaluated(trainer, config, loaders)
        assert without == together[name]["test_result_without_history"]
        assert alone.keys() == ranks.keys()
        likely = alone.pop("log_likelihood", np.zeros(61))
        assert likely == pytest.approx(ranks.get("log_likelihood", np.zeros(61)), abs=1e-4)
        assert all((alone[key] == ranks[key]).all() for key in alone)
