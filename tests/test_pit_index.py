"""The beam index against explicit loops, the weighted trie, and how items are ranked from it."""

import math

import pytest
import torch
from models import random_table

from recbole_gr.generation.beam_search import NEVER, Beams, beam_search
from recbole_gr.generation.exact import exact_scores
from recbole_gr.generation.ranking import TAIL_SCORE, fill_places, rank_items
from recbole_gr.model.pit.candidates import (
    nearest_sids,
    residual_codebooks,
    starting_sid_first,
)
from recbole_gr.model.pit.index import EMPTY, BeamIndex
from recbole_gr.model.pit.statistics import index_figures
from recbole_gr.sid.trie import SIDTrie

SIZES = (3, 4, 3)


def new_index(n_items=7, max_sids=3, spare=3, seed=0, **options):
    table = random_table(n_items, SIZES, seed)
    options = {"decay": 0.5, "prior_weight": 1.0, "threshold": 0.05, **options}
    return BeamIndex(table.codes.clamp_min(0), SIZES, max_sids, spare, **options)


def random_candidates(n_rows, n, seed=0):
    """Distinct random SIDs per row, sometimes fewer than ``n``, with log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    total = math.prod(SIZES)
    number = torch.rand(n_rows, total, generator=generator).argsort(1)[:, :n]
    codes = torch.stack([number // 12, number // 3 % 4, number % 3], 2)
    log_prob = -3 * torch.rand(n_rows, n, generator=generator)
    log_prob[:, 1:] = log_prob[:, 1:].masked_fill(
        torch.rand(n_rows, n - 1, generator=generator) < 0.2, EMPTY
    )
    return codes, log_prob


class SlowIndex:
    """Dictionaries and loops: ``edges[item] = {sid: [count, log_prob, weight]}``."""

    def __init__(self, index):
        self.index = index
        self.edges = {
            item: {tuple(index.codes[item, 0].tolist()): [0.0, 0.0, 1.0]}
            for item in range(1, index.n_items)
        }

    def observe(self, items, codes, log_prob, selected):
        for row, item in enumerate(items.tolist()):
            edges = self.edges[item]
            for sid, logp, n in zip(codes[row].tolist(), log_prob[row], selected[row]):
                if tuple(sid) in edges:
                    edges[tuple(sid)][0] += float(n)
                elif n > 0:
                    edges[tuple(sid)] = [float(n), float(logp), 0.0]
            ranked = sorted(edges.items(), key=lambda e: (e[1][2] <= 0, -e[1][0]))
            self.edges[item] = dict(ranked[: self.index.capacity])

    def refresh(self, codes, log_prob):
        index = self.index
        for item, edges in self.edges.items():
            for edge in edges.values():
                edge[0] *= index.decay
            for sid, logp in zip(codes[item].tolist(), log_prob[item].tolist()):
                if logp != EMPTY:
                    edges.setdefault(tuple(sid), [0.0, logp, 0.0])[1] = logp
            total = sum(edge[0] for edge in edges.values())
            heat = index.temperature
            norm = sum(math.exp(edge[1] / heat) for edge in edges.values())
            for edge in edges.values():
                prior = index.prior_weight * math.exp(edge[1] / heat) / norm
                edge[2] = (edge[0] + prior) / (total + index.prior_weight)
            ranked = sorted(edges.items(), key=lambda e: -e[1][2])[: index.max_sids]
            kept = [e for n, e in enumerate(ranked) if n == 0 or e[1][2] >= index.threshold]
            self.edges[item] = dict(kept)


def assert_equal(index, slow):
    for item, edges in slow.edges.items():
        held = index.log_prob[item] != EMPTY
        found = {
            tuple(sid): [float(n), float(p), float(w)]
            for sid, n, p, w, full in zip(
                index.codes[item].tolist(),
                index.count[item],
                index.log_prob[item],
                index.weight[item],
                held,
            )
            if full
        }
        assert found.keys() == edges.keys(), item
        for sid, edge in edges.items():
            assert found[sid] == pytest.approx(edge, abs=1e-5), (item, sid)


@pytest.mark.parametrize("seed", range(4))
def test_the_index_follows_dictionaries_and_loops(seed):
    index = new_index(seed=seed, temperature=1.0 + seed % 2)
    slow = SlowIndex(index)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(4):
        for batch in range(3):
            items = torch.randperm(7, generator=generator)[:4] + 1
            codes, log_prob = random_candidates(4, 3, 100 * seed + 10 * epoch + batch)
            selected = torch.rand(4, 3, generator=generator) * 5  # no ties
            selected = selected.masked_fill((selected < 2) | (log_prob == EMPTY), 0)
            index.observe(items, codes, log_prob, selected)
            slow.observe(items, codes, log_prob, selected)
            assert_equal(index, slow)
        codes, log_prob = random_candidates(8, 3, 1000 + 100 * seed + epoch)
        log_prob[0] = EMPTY
        index.refresh(codes, log_prob)
        slow.refresh(codes, log_prob)
        assert_equal(index, slow)
    assert not index.weight[0].any()  # padding owns nothing


def test_memory_is_bounded_and_every_item_keeps_a_sid():
    index = new_index(threshold=0.9)
    before = index.memory_bytes()
    for seed in range(6):
        codes, log_prob = random_candidates(7, 3, seed)
        index.observe(torch.arange(1, 8), codes, log_prob, torch.rand(7, 3) * (log_prob > EMPTY))
        index.refresh(*random_candidates(8, 3, 50 + seed))
    assert index.memory_bytes() == before
    _, items, weights = index.edges()
    assert set(items.tolist()) >= set(range(1, 8)) and bool((weights > 0).all())
    assert torch.equal(items.bincount(), torch.bincount(items).clamp_max(3))


def test_an_unselected_item_keeps_the_prior_and_selection_moves_weight():
    index = new_index(threshold=0.0)
    codes, log_prob = random_candidates(8, 3, 5)
    log_prob = log_prob.clamp_min(-3)
    log_prob[0] = EMPTY
    index.restart(codes, log_prob)
    prior = index.weight.clone()
    expected = log_prob[1:].softmax(1).sort(1, descending=True).values
    assert torch.allclose(prior[1:, :3], expected, atol=1e-6)
    last = index.codes[3:4, 2:3].long()
    index.observe(torch.tensor([3]), last, log_prob[3:4, :1], torch.tensor([[10.0]]))
    index.refresh(codes, log_prob)
    assert torch.equal(index.heaviest(torch.tensor([3])), last[0])
    assert torch.allclose(index.weight[4], prior[4], atol=1e-6)
    for _ in range(30):  # the count decays away
        index.refresh(codes, log_prob)
    assert torch.allclose(index.weight, prior, atol=1e-6)


def test_a_new_item_enters_with_its_prior():
    index = new_index()
    codes, log_prob = random_candidates(2, 4, 3)
    ids = index.add_items(codes, log_prob)
    assert ids.tolist() == [8, 9] and index.n_items == 10
    for row in range(2):
        usable = log_prob[row] > EMPTY
        heaviest = log_prob[row].argmax()
        assert torch.equal(index.heaviest(ids[row]), codes[row, heaviest])
        assert int((index.weight[ids[row]] > 0).sum()) == min(3, int(usable.sum()))
    assert {8, 9} <= set(index.trie().leaf_item.tolist())


def random_edges(seed=0, n_items=9, n_edges=24):
    generator = torch.Generator().manual_seed(seed)
    items = (
        torch.cat(
            [
                torch.arange(1, n_items + 1),
                torch.randint(1, n_items + 1, (n_edges - n_items,), generator=generator),
            ]
        )
        .sort()
        .values
    )
    number = torch.randint(0, 14, (n_edges,), generator=generator)  # few SIDs: many are shared
    pairs = torch.stack([items, number], 1).unique(dim=0)
    items, number = pairs.unbind(1)
    codes = torch.stack([number // 12, number // 3 % 4, number % 3], 1)
    return codes, items, torch.rand(len(items), generator=generator) + 0.1


def weighted_trie(codes, items, weights):
    """A trie whose weights are put in place by looking each pair up."""
    trie = SIDTrie(codes, items, SIZES)
    leaf, item = trie.entries()
    where = {(tuple(c), i): w for c, i, w in zip(codes.tolist(), items.tolist(), weights.tolist())}
    sid_of_leaf = sorted({tuple(c) for c in codes.tolist()})
    trie.weigh(
        torch.tensor([where[sid_of_leaf[n], i] for n, i in zip(leaf.tolist(), item.tolist())])
    )
    return trie


def random_step(n_users, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(n_users, 1, SIZES[0], generator=generator)]
    tables += [torch.randn(n_users, SIZES[n - 1], SIZES[n], generator=generator) for n in (1, 2)]

    def step(level, codes, parents):
        if level == 0:
            return tables[0]
        return tables[level].gather(1, codes.unsqueeze(2).expand(-1, -1, SIZES[level]))

    return step, tables


def slow_item_scores(codes, items, weights, tables, user, merge):
    """Every (SID, item) pair by itself."""
    scores = {}
    for sid, item, weight in zip(codes.tolist(), items.tolist(), weights.tolist()):
        logp, last = 0.0, 0
        for level, code in enumerate(sid):
            logp += float(tables[level][user, last].log_softmax(0)[code])
            last = code
        same = [w for s, w in zip(codes.tolist(), weights.tolist()) if s == sid]
        scores.setdefault(item, []).append(logp + math.log(weight / sum(same)))
    if merge == "max":
        return {item: max(parts) for item, parts in scores.items()}
    return {i: math.log(sum(math.exp(p) for p in parts)) for i, parts in scores.items()}


@pytest.mark.parametrize("merge", ["logsumexp", "max"])
@pytest.mark.parametrize("seed", range(3))
def test_weighted_ranking_and_exact_scores_equal_brute_force(seed, merge):
    codes, items, weights = random_edges(seed)
    trie = weighted_trie(codes, items, weights)
    step, tables = random_step(3, seed)
    beams = beam_search(step, trie, 3, 100)
    found = rank_items(trie, beams, 9, merge)
    exact = exact_scores(step, trie, 3, merge=merge)
    for user in range(3):
        slow = slow_item_scores(codes, items, weights, tables, user, merge)
        order = sorted(slow, key=lambda item: -slow[item])
        assert found.items[user].tolist() == order
        assert found.scores[user].tolist() == pytest.approx([slow[i] for i in order], abs=1e-5)
        for item in order:
            assert float(exact[user, item]) == pytest.approx(slow[item], abs=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_items_and_shares_of_leaves_equal_a_look_at_every_pair(weighted):
    codes, items, weights = random_edges(1)
    plain = SIDTrie(codes, items, SIZES)
    trie = weighted_trie(codes, items, weights) if weighted else plain
    sids = sorted({tuple(c) for c in codes.tolist()})
    on = {sid: {} for sid in sids}
    for sid, item, weight in zip(map(tuple, codes.tolist()), items.tolist(), weights.tolist()):
        on[sid][item] = weight if weighted else 1.0
    leaves = torch.tensor([[2, -1, 0, len(sids) - 1], [1, 3, -1, -1], [-1, -1, -1, -1]])
    found, share, column = trie.spread(leaves)
    for row in range(3):
        expected = [
            (item, math.log(weight / sum(on[sids[leaf]].values())), place)
            for place, leaf in enumerate(leaves[row].tolist())
            if leaf >= 0
            for item, weight in sorted(on[sids[leaf]].items())
        ]
        n = len(expected)
        assert not found[row, n:].any()
        assert found[row, :n].tolist() == [item for item, _, _ in expected]
        assert share[row, :n].tolist() == pytest.approx([s for _, s, _ in expected], abs=1e-5)
        assert column[row, :n].tolist() == [place for _, _, place in expected]
    for leaf, sid in enumerate(sids):
        for item in range(1, 10):
            one = float(trie.log_share_of(torch.tensor(leaf), torch.tensor(item)))
            total = sum(on[sid].values())
            expected = math.log(on[sid][item] / total) if item in on[sid] else EMPTY
            assert one == pytest.approx(expected, abs=1e-5)
    assert float(trie.log_share_of(torch.tensor(-1), torch.tensor(2))) == EMPTY


def two_leaves(scores, codes, items, weights):
    trie = weighted_trie(torch.tensor(codes), torch.tensor(items), torch.tensor(weights))
    nodes = torch.arange(trie.n_nodes[-1]).unsqueeze(0)
    blank = torch.zeros(1, nodes.shape[1], 3, dtype=torch.long)
    return trie, Beams(nodes, torch.tensor([scores]), blank)


def test_two_sids_of_one_item_add_up():
    trie, beams = two_leaves([-1.0, -2.0], [[0, 0, 0], [0, 0, 1]], [1, 1], [0.4, 0.6])
    found = rank_items(trie, beams, 1)
    assert float(found.scores[0, 0]) == pytest.approx(float(torch.logaddexp(*beams.scores[0])))
    assert float(rank_items(trie, beams, 1, "max").scores[0, 0]) == pytest.approx(-1.0)


def test_two_items_on_one_sid_share_it_by_weight():
    trie, beams = two_leaves([-1.0], [[0, 0, 0], [0, 0, 0]], [1, 2], [0.2, 0.6])
    found = rank_items(trie, beams, 2)
    assert found.items.tolist() == [[2, 1]]
    expected = [-1 + math.log(0.75), -1 + math.log(0.25)]
    assert found.scores[0].tolist() == pytest.approx(expected)


def test_an_excluded_item_is_not_reached_through_a_sid_it_shares():
    trie, beams = two_leaves([-1.0], [[0, 0, 0], [0, 0, 0]], [1, 2], [0.2, 0.6])
    found = rank_items(trie, beams, 2, exclude=torch.tensor([[2, 0]]))
    assert found.items.tolist() == [[1, 0]]
    assert float(found.scores[0, 0]) == pytest.approx(-1 + math.log(0.25))


def test_the_trie_of_an_index_holds_its_edges_and_weights():
    index = new_index(n_items=20, threshold=0.0)
    codes, log_prob = random_candidates(21, 3, 2)
    log_prob[0] = EMPTY
    index.restart(codes, log_prob)
    edges = index.edges()
    prior = torch.rand(21) + 0.5
    trie = index.trie(prior)
    slow = weighted_trie(edges[0], edges[1], edges[2] * prior[edges[1]])
    assert torch.equal(trie.leaf_item, slow.leaf_item)
    assert torch.allclose(trie.entry_share, slow.entry_share, atol=1e-6)
    heaviest = index.trie(only_heaviest=True)
    assert heaviest.one_sid_each and len(heaviest.leaf_item) == 20


def test_empty_places_are_filled_from_the_tail_in_order_whatever_k():
    items = torch.tensor([[5, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    scores = torch.tensor([[-1.0, -2.0, *[NEVER] * 4], [NEVER] * 6])
    tail = torch.tensor([3, 7, 5, 1, 2, 4, 6])
    exclude = torch.tensor([[1, 0], [0, 7]])
    filled, below = fill_places(items, scores, tail, exclude)
    assert filled.tolist() == [[5, 3, 7, 2, 4, 6], [3, 5, 1, 2, 4, 6]]
    assert below[0, 2:].tolist() == [TAIL_SCORE - rank for rank in (1, 4, 5, 6)]
    assert bool((below.diff(dim=1) < 0).all())
    filled, below = fill_places(items, scores, tail[:3])  # the tail ends
    assert filled.tolist() == [[5, 3, 7, 0, 0, 0], [3, 7, 5, 0, 0, 0]]
    assert below[0, 3] == NEVER


def test_the_starting_sid_comes_first_and_only_once():
    codes, log_prob = random_candidates(5, 3, 4)
    start = torch.stack([codes[0, 2], codes[1, 0], *random_candidates(3, 1, 9)[0][:, 0]])
    found, scores = starting_sid_first(start, torch.full((5,), -0.5), codes, log_prob)
    assert found.shape == codes.shape and torch.equal(found[:, 0], start)
    assert found[0, 1:].tolist() == codes[0, :2].tolist()
    assert found[1, 1:].tolist() == codes[1, 1:].tolist()
    assert bool((scores[:, 0] == -0.5).all())
    for row in found.tolist():
        assert len(set(map(tuple, row))) == 3


def test_nearest_sids_equal_the_search_over_all_of_them():
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(40, 5, generator=generator)
    codes = torch.randint(0, 3, (40, 2), generator=generator)
    codes[codes[:, 0] == 1] = 0  # a code without items
    books = residual_codebooks(content, codes, (3, 3))
    assert bool(torch.isinf(books[0][1]).all())
    found, score = nearest_sids(content, books, 100)
    usable = [(a, b) for a in (0, 2) for b in range(3)]
    for row in range(5):
        distance = {
            sid: float((content[row] - books[0][sid[0]] - books[1][sid[1]]).square().sum())
            for sid in usable
        }
        order = sorted(usable, key=distance.get)
        assert [tuple(sid) for sid in found[row, : len(order)].tolist()] == order
        assert bool((score[row, len(order) :] == EMPTY).all())


def test_figures_of_an_index():
    index = new_index(n_items=3, max_sids=2, spare=0, threshold=0.0)
    codes = torch.tensor([[0, 0, 0]] * 4).unsqueeze(1).repeat(1, 2, 1)
    codes[1:, 1] = torch.tensor([[1, 0, 0], [2, 0, 0], [2, 3, 0]])
    log_prob = torch.tensor([[EMPTY] * 2, [0.0, 0.0], [0.0, 0.0], [0.0, EMPTY]])
    before = index.heaviest()
    index.restart(codes, log_prob)
    figures = index_figures(index, before)
    share = [2 / 3, 1 / 6, 1 / 6]
    bits = -sum(s * math.log2(s) for s in share)
    assert figures["codebook entropy (bits)"]["level a of 3"] == pytest.approx(bits, abs=1e-5)
    assert figures["SIDs per item"] == {"mean": pytest.approx(5 / 3), "largest": 2}
    assert figures["items per SID"] == {"mean": pytest.approx(5 / 3), "largest": 3}
    assert figures["share of items by SIDs"] == pytest.approx({"1": 1 / 3, "2": 2 / 3})
    moved = sum(before[i].tolist() != [0, 0, 0] for i in (1, 2, 3)) / 3
    assert figures["SID churn"]["heaviest SID changed"] == pytest.approx(moved)
