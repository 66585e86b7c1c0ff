"""Ranked lists: RecBole's figures without a dense matrix, and figures that only SIDs have."""

import pytest
import torch
from data_helpers import RATIO
from models import random_table
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from recbole.trainer import Trainer

from recbole_gr.generation.beam_search import NEVER, Beams
from recbole_gr.generation.ranking import rank_items
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie
from recbole_gr.trainer.evaluation import RankedLists, sample_users

FROM_LISTS = ["Recall", "NDCG", "MRR", "Hit", "Precision", "MAP", "ItemCoverage", "GiniIndex"]
FROM_LISTS += ["AveragePopularity", "ShannonEntropy", "TailPercentage"]


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, RATIO["split"]])
@pytest.mark.parametrize("shared", [False, True])
def test_all_list_metrics_equal_recboles_evaluator_after_training(parts, split, shared):
    options = {"metrics": FROM_LISTS, "metric_decimal_place": 10, "learning_rate": 0.01}
    _, trainer, train, valid, test = parts(shared, eval_args={"split": split}, **options)
    trainer.fit(train, valid, saved=False)
    users = test._dataset.inter_feat["user_id"]
    assert (len(users) > len(users.unique())) == ("RS" in split)  # several targets of a user

    ranked = trainer.evaluate(test, load_best_model=False)
    # Equal scores (items of one SID) in the order of their ids, which float32 cannot hold.
    dense = trainer.model.full_sort_predict
    ids = torch.arange(trainer.model.n_items) * 1e-9
    trainer.model.full_sort_predict = lambda batch: dense(batch).double() - ids
    expected = Trainer.evaluate(trainer, test, load_best_model=False)
    assert len(expected) == 2 * len(FROM_LISTS)
    for name, value in expected.items():
        assert ranked[name] == pytest.approx(value, abs=1e-9), name
    assert 0 < ranked["recall@5"] < 1


def test_rows_with_several_positives_are_collected_as_recbole_does(parts):
    config, *_ = parts(metrics=["NDCG", "ItemCoverage"])
    table = random_table(30, (4, 5, 3))
    trie = SIDTrie.from_table(table)
    scores = torch.randn(6, 31).log_softmax(1)
    scores[:, 0] = NEVER
    positive_u = torch.tensor([0, 0, 0, 1, 2, 2, 4, 5, 5])
    positive_i = torch.tensor([1, 7, 30, 4, 9, 2, 11, 3, 8])
    order = scores.argsort(dim=1, descending=True)[:, :15]
    nodes = trie.item_paths()[-1][order, 0].long()
    beams = Beams(nodes, scores.gather(1, order), table.codes[order])
    assert positive_i.unique().numel() == len(positive_i)

    lists, ours = RankedLists(trie, [5, 10]), DataStruct()
    for first in (0, 3):  # two batches of three users
        rows = slice(first, first + 3)
        here = (positive_u >= first) & (positive_u < first + 3)
        part = Beams(*(x[rows] for x in beams[:3]))
        items = rank_items(trie, part, 10).items
        lists.add(part, items, positive_u[here] - first, positive_i[here])
    lists.into(ours)
    collector = Collector(config)
    collector.eval_batch_collect(scores, None, positive_u, positive_i)
    theirs = collector.get_data_struct()
    for key in ("rec.topk", "rec.items"):
        assert torch.equal(ours.get(key), theirs.get(key)), key
    assert ours.get("rec.topk")[:, -1].tolist() == [3, 1, 2, 0, 1, 2]


def test_a_shared_sid_is_no_hit_for_all_of_its_items():
    """Items 1 and 2 share the SID A; of two users who want item 2, one gets A first."""
    codes = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1]])
    trie = SIDTrie.from_table(SIDTable.from_item_codes(codes, (2, 2)))
    a, b, c = (int(leaf) for leaf in trie.item_paths()[-1][[1, 3, 4], 0])
    beams = Beams(
        torch.tensor([[a, b], [c, -1]]),
        torch.tensor([[-0.1, -3.0], [-0.2, NEVER]]),
        torch.zeros(2, 2, 2).long(),
    )
    lists, struct = RankedLists(trie, [1, 2]), DataStruct()
    items = rank_items(trie, beams, 2).items
    lists.add(beams, items, torch.tensor([0, 1]), torch.tensor([2, 2]))
    lists.into(struct)
    # Item 1 comes before item 2 (equal scores, lower id); the dead beam gives nothing.
    assert struct.get("rec.items").tolist() == [[1, 2], [4, 0]]
    assert struct.get("rec.topk").tolist() == [[0, 1, 1], [0, 0, 1]]
    figures = lists.figures()
    assert figures == {"invalid_beams": 0.25, "sid_recall@1": 0.5, "sid_recall@2": 0.5}


def test_sid_recall_lies_above_recall_only_where_sids_are_shared(parts):
    for shared in (False, True):
        options = {"metrics": ["Recall", "NDCG"], "learning_rate": 0.01}
        _, trainer, train, valid, test = parts(shared, **options)
        trainer.fit(train, valid, saved=False)
        result = trainer.evaluate(test, load_best_model=False)
        figures = trainer.generation_figures
        assert figures["invalid_beams"] == 0.0
        for k in (5, 10):
            sid, item = figures[f"sid_recall@{k}"], result[f"recall@{k}"]
            assert sid > item if shared else sid == item


def test_beams_wider_than_the_catalogue_are_not_called_invalid(parts):
    _, trainer, train, valid, test = parts(beam_size=100, epochs=1)
    trainer.fit(train, valid, saved=False)
    trainer.evaluate(test, load_best_model=False)
    assert trainer.generation_figures["invalid_beams"] == 0.0


def test_a_sample_of_validation_users_depends_on_the_seed_alone(parts):
    _, _, _, valid, _ = parts()
    samples = [sample_users(valid, 12, seed)._dataset.inter_feat for seed in (1, 1, 2)]
    first, again, other = (sample["user_id"].tolist() for sample in samples)
    assert first == again != other and len(set(first)) == 12
    target_of = dict(zip(*(valid._dataset.inter_feat[f].tolist() for f in ("user_id", "item_id"))))
    assert [target_of[user] for user in first] == samples[0]["item_id"].tolist()
    assert sample_users(valid, 0, 1) is valid and sample_users(valid, 60, 1) is valid


def test_epochs_are_compared_on_the_sample_and_reported_on_all(parts):
    _, trainer, train, valid, _ = parts(valid_users=9, epochs=2)
    seen, evaluate = [], trainer.evaluate
    trainer.evaluate = lambda data, **options: seen.append(len(data._dataset)) or evaluate(
        data, **options
    )
    trainer.fit(train, valid)
    assert seen == [9, 9, 60]


@pytest.mark.parametrize("mode", ["uni10", "pop10"])
def test_sampled_ranking_ranks_by_the_exact_score_of_each_candidate(parts, mode):
    args = {"mode": {"valid": mode, "test": mode}}
    _, trainer, train, valid, test = parts(eval_args=args, metrics=["Hit", "NDCG"])
    trainer.fit(train, valid, saved=False)
    seen, collect = [], trainer.eval_collector.eval_batch_collect

    def spy(scores, *positives):
        seen.append((scores.clone(), *positives))
        collect(scores, *positives)

    trainer.eval_collector.eval_batch_collect = spy
    result = trainer.evaluate(test, load_best_model=False)
    hits = []
    for scores, interaction, _, positive_i in seen:
        n_candidates = (scores > NEVER).sum(1)
        assert ((n_candidates > 1) & (n_candidates <= 11)).all()
        first = torch.arange(0, len(interaction), 11)  # a user's rows: the positive, ten negatives
        exact = trainer.model.exact(interaction[first])
        candidates = scores > NEVER
        assert torch.allclose(scores[candidates], exact[candidates], atol=1e-4)
        rank = (scores > scores.gather(1, positive_i.unsqueeze(1))).sum(1)
        hits += (rank < 5).tolist()
    assert len(hits) == 60
    assert result["hit@5"] == pytest.approx(sum(hits) / len(hits), abs=1e-4)


def test_labelled_evaluation_works_through_predict(parts):
    options = {"mode": "labeled", "split": {"LS": "valid_and_test"}}
    _, trainer, train, valid, test = parts(
        eval_args=options,
        metrics=["LogLoss"],
        valid_metric="LogLoss",
        load_col={"inter": ["user_id", "item_id", "rating", "timestamp"]},
        threshold={"rating": 3},
        epochs=1,
    )
    trainer.fit(train, valid, saved=False)
    assert trainer.evaluate(test, load_best_model=False)["logloss"] > 0
