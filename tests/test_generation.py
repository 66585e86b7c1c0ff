"""The trie and the beam search against brute force over all items."""

import itertools

import pytest
import torch

from recbole_gr.generation.beam_search import NEVER, Beams, beam_search, best
from recbole_gr.generation.exact import beam_regret, exact_scores
from recbole_gr.generation.ranking import Generated, rank_items
from recbole_gr.sid.trie import SIDTrie


class TableModel:
    """A 'model' whose logits depend on user and prefix, computed without any cache."""

    def __init__(self, n_users, sizes, seed=0, scale=2.0):
        self.sizes, self.n_users, self.seed, self.scale = sizes, n_users, seed, scale
        self.prefix = None
        self.calls = []

    def logits(self, user, prefix):
        key = hash((self.seed, user, tuple(prefix))) % (1 << 31)
        generator = torch.Generator().manual_seed(key)
        return torch.randn(self.sizes[len(prefix)], generator=generator) * self.scale

    def __call__(self, level, codes, parents):
        if level == 0:
            self.prefix = [[[]] for _ in range(self.n_users)]
        else:
            self.prefix = [
                [self.prefix[u][p] + [c] for p, c in zip(ps, cs, strict=True)]
                for u, (ps, cs) in enumerate(zip(parents.tolist(), codes.tolist(), strict=True))
            ]
        self.calls.append((level, len(self.prefix[0])))
        return torch.stack(
            [torch.stack([self.logits(u, p) for p in beams]) for u, beams in enumerate(self.prefix)]
        )

    def item_scores(self, user, codes, items, renormalise=False):
        """Log-probability of every (SID, item) row, by following its path alone."""
        rows = [tuple(row) for row in codes.tolist()]
        result = {}
        for row, item in zip(rows, items.tolist(), strict=True):
            score = 0.0
            for level, code in enumerate(row):
                logits = self.logits(user, row[:level]).double()
                if renormalise:
                    allowed = {other[level] for other in rows if other[:level] == row[:level]}
                    logits = logits[sorted(allowed)]
                    score += (logits.log_softmax(0)[sorted(allowed).index(code)]).item()
                else:
                    score += logits.log_softmax(0)[code].item()
            sharing = len({i for r, i in zip(rows, items.tolist(), strict=True) if r == row})
            probability = torch.tensor(score).double().exp().item() / sharing
            result[item] = result.get(item, 0.0) + probability
        return {item: torch.tensor(p).log().item() for item, p in result.items()}


def catalogue(seed, n_items, sizes, shared=False, many=False):
    """Random SIDs in random order; ``shared``: repeats allowed, ``many``: items with several."""
    generator = torch.Generator().manual_seed(seed)
    every = torch.tensor(list(itertools.product(*[range(s) for s in sizes])))
    if shared:
        rows = torch.randint(len(every), (n_items,), generator=generator)
    else:
        rows = torch.randperm(len(every), generator=generator)[:n_items]
    items = torch.randperm(len(rows), generator=generator) + 1
    if many:
        items = items % max(1, n_items // 2) + 1
    return every[rows], items


SHAPES = [(6, 5), (4, 4, 4), (3, 7, 2), (2, 2, 2, 2, 2), (50,)]


@pytest.mark.parametrize("dense_limit", [0, 1 << 20], ids=["sparse", "dense"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("kind", ["unique", "shared", "many"])
def test_full_width_beam_equals_brute_force_over_all_items(dense_limit, seed, sizes, kind):
    codes, items = catalogue(seed, 20, sizes, kind == "shared", kind == "many")
    trie = SIDTrie(codes, items, sizes, dense_limit)
    for renormalise in (False, True):
        model = TableModel(3, sizes, seed)
        beams = beam_search(model, trie, 3, 10_000, renormalise=renormalise)
        found = rank_items(trie, beams, len(items.unique()))
        exact = exact_scores(TableModel(3, sizes, seed), trie, 3, renormalise)
        for user in range(3):
            truth = model.item_scores(user, codes, items, renormalise)
            ranking = sorted(truth, key=lambda item: (-truth[item], item))
            assert found.items[user].tolist() == ranking
            expected = torch.tensor([truth[item] for item in ranking])
            assert torch.allclose(found.scores[user], expected.float(), atol=1e-4)
            assert torch.allclose(exact[user, ranking], expected.float(), atol=1e-4)


@pytest.mark.parametrize("dense_limit", [0, 1 << 20], ids=["sparse", "dense"])
def test_narrow_beam_equals_an_explicit_loop_over_prefixes(dense_limit):
    sizes, width = (5, 6, 4), 4
    codes, items = catalogue(1, 60, sizes)
    trie = SIDTrie(codes, items, sizes, dense_limit)
    model = TableModel(2, sizes, 5)
    beams = beam_search(model, trie, 2, width)
    prefixes = {tuple(row[: n + 1]) for row in codes.tolist() for n in range(3)}
    for user in range(2):
        kept = [((), 0.0)]
        for level in range(3):
            wider = []
            for prefix, score in kept:
                logp = model.logits(user, prefix).log_softmax(0)
                for code in range(sizes[level]):
                    if (*prefix, code) in prefixes:
                        wider.append(((*prefix, code), score + logp[code].item()))
            kept = sorted(wider, key=lambda pair: -pair[1])[:width]
        assert [tuple(row) for row in beams.codes[user].tolist()] == [p for p, _ in kept]
        assert torch.allclose(beams.scores[user], torch.tensor([s for _, s in kept]), atol=1e-5)


def test_first_step_scores_one_prefix_per_user_and_no_level_has_more_beams_than_prefixes():
    codes, items = catalogue(0, 12, (3, 4, 5))
    trie = SIDTrie(codes, items, (3, 4, 5))
    model = TableModel(2, (3, 4, 5))
    beam_search(model, trie, 2, 50)
    assert model.calls == [(0, 1), (1, trie.n_nodes[1]), (2, trie.n_nodes[2])]


@pytest.mark.parametrize("dense_limit", [0, 1 << 20], ids=["sparse", "dense"])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_last_code_is_asked_for_only_where_there_is_a_choice(dense_limit, share, monkeypatch):
    """A suffix level: most prefixes have one code left. The same beams to the last bit."""
    generator = torch.Generator().manual_seed(1)
    prefixes = torch.randperm(36, generator=generator)[:20]
    crowded = torch.arange(20) < 20 * share
    rows = [(n // 6, n % 6, k) for n, many in zip(prefixes.tolist(), crowded.tolist())
            for k in range(3 if many else 1)]  # fmt: skip
    codes, items = torch.tensor(rows), torch.arange(1, len(rows) + 1)
    trie = SIDTrie(codes, items, (6, 6, 3), dense_limit)
    model, other = TableModel(4, (6, 6, 3)), TableModel(4, (6, 6, 3))
    found = beam_search(model, trie, 4, 8, renormalise=True)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # asks for all
    expected = beam_search(other, trie, 4, 8, renormalise=True)
    assert all(map(torch.equal, found[:3], expected[:3]))
    assert other.calls == [(0, 1), (1, 6), (2, 8)]
    width = dict(model.calls).get(2, 0)
    assert width == 0 if share == 0 else width == 8 if share == 1 else 0 < width < 8


@pytest.mark.parametrize("dense_limit", [0, 1 << 20], ids=["sparse", "dense"])
def test_every_beam_is_a_sid_of_the_catalogue(dense_limit):
    sizes = (8, 8, 8)
    codes, items = catalogue(3, 40, sizes)
    trie = SIDTrie(codes, items, sizes, dense_limit)
    beams = beam_search(TableModel(6, sizes, 9), trie, 6, 16)
    known = {tuple(row) for row in codes.tolist()}
    alive = beams.nodes >= 0
    assert all(tuple(row) in known for row in beams.codes[alive].tolist())
    assert (alive == (beams.scores > NEVER)).all()


def test_a_beam_wider_than_the_catalogue_leaves_empty_places_not_invented_items():
    codes, items = torch.tensor([[0, 1], [2, 0]]), torch.tensor([1, 2])
    trie = SIDTrie(codes, items, (3, 2))
    found = rank_items(trie, beam_search(TableModel(1, (3, 2)), trie, 1, 20), 5)
    assert sorted(found.items[0, :2].tolist()) == [1, 2]
    assert found.items[0, 2:].tolist() == [0, 0, 0]
    assert (found.scores[0, 2:] == NEVER).all()


def test_dead_beams_stay_dead():
    # From code 0 of level 0 only one code follows; impossible logits kill that path for good.
    codes, items = torch.tensor([[0, 1, 0], [1, 0, 1]]), torch.tensor([1, 2])
    trie = SIDTrie(codes, items, (2, 2, 2))

    def step(level, last, parents):
        logits = torch.zeros(1, 1 if level == 0 else 2, 2)
        if level == 1:
            logits[..., 1] = NEVER
        return logits

    beams = beam_search(step, trie, 1, 2)
    assert beams.nodes[0].tolist() == [1, -1] and beams.scores[0, 1] == NEVER
    found = rank_items(trie, beams, 2)
    assert found.items.tolist() == [[2, 0]]


def test_single_item_catalogue():
    trie = SIDTrie(torch.tensor([[3, 1]]), torch.tensor([1]), (4, 2))
    model = TableModel(2, (4, 2))
    found = rank_items(trie, beam_search(model, trie, 2, 5), 1)
    assert found.items.tolist() == [[1], [1]]


def test_items_that_all_share_one_sid_divide_its_probability_and_rank_by_id():
    codes = torch.tensor([[1, 1]] * 4)
    trie = SIDTrie(codes, torch.tensor([4, 2, 3, 1]), (2, 2))
    model = TableModel(1, (2, 2))
    found = rank_items(trie, beam_search(model, trie, 1, 2), 4)
    assert found.items.tolist() == [[1, 2, 3, 4]]
    sid = model.logits(0, []).log_softmax(0)[1] + model.logits(0, [1]).log_softmax(0)[1]
    assert torch.allclose(found.scores[0], (sid - torch.tensor(4.0).log()).expand(4), atol=1e-5)


def test_equal_scores_are_ordered_by_the_lower_item_id_also_at_the_edge_of_the_beam():
    sizes = (6, 6)
    codes, items = catalogue(4, 36, sizes)
    for dense_limit in (0, 1 << 20):
        trie = SIDTrie(codes, items, sizes, dense_limit)

        def flat(level, last, parents):
            return torch.zeros(1, 1 if level == 0 else last.shape[1], 6)

        full = rank_items(trie, beam_search(flat, trie, 1, 36), 36)
        assert full.items[0].tolist() == list(range(1, 37))
        # With one beam the prefix of item 1 is kept, so item 1 is found.
        assert rank_items(trie, beam_search(flat, trie, 1, 1), 1).items[0, 0] == 1


def test_an_item_with_two_sids_is_merged_also_where_other_ids_have_none():
    # Two items on three SIDs, and ids 1 to 3 and 5 to 8 without any: fewer SIDs than ids.
    codes, items = torch.tensor([[0, 1], [1, 0], [1, 1]]), torch.tensor([4, 9, 4])
    trie = SIDTrie(codes, items, (2, 2))
    model = TableModel(1, (2, 2))
    truth = model.item_scores(0, codes, items)
    found = rank_items(trie, beam_search(model, trie, 1, 10), 3)
    assert found.items.tolist() == [[*sorted(truth, key=truth.get, reverse=True), 0]]
    expected = torch.tensor([truth[i] for i in found.items[0, :2].tolist()])
    assert torch.allclose(found.scores[0, :2], expected, atol=1e-5)
    exact = exact_scores(TableModel(1, (2, 2)), trie, 1)
    assert torch.allclose(exact[0, found.items[0, :2]], expected, atol=1e-5)


def test_scores_over_the_catalogue_sum_to_one_when_renormalised():
    codes, items = catalogue(7, 30, (5, 5, 5), shared=True)
    trie = SIDTrie(codes, items, (5, 5, 5))
    exact = exact_scores(TableModel(4, (5, 5, 5)), trie, 4, renormalise=True)
    assert torch.allclose(exact.exp().sum(1), torch.ones(4), atol=1e-5)


@pytest.mark.parametrize("kind", ["unique", "shared", "many"])
@pytest.mark.parametrize("dense_limit", [0, 1 << 20], ids=["sparse", "dense"])
def test_excluded_items_are_never_returned_and_cost_no_beams(kind, dense_limit):
    sizes = (4, 4, 4)
    codes, items = catalogue(2, 24, sizes, kind == "shared", kind == "many")
    trie = SIDTrie(codes, items, sizes, dense_limit)
    free = rank_items(trie, beam_search(TableModel(3, sizes), trie, 3, 10_000), trie.n_items)
    exclude = torch.cat([free.items[:, :5], free.items[:, :2], torch.zeros(3, 2).long()], 1)
    # Full width: the ranking without the excluded items.
    found = rank_items(
        trie, beam_search(TableModel(3, sizes), trie, 3, 10_000, exclude=exclude), trie.n_items
    )
    if kind != "shared":  # items that share a SID go with it only when all of them are excluded
        for user in range(3):
            rest = [i for i in free.items[user].tolist() if i and i not in exclude[user].tolist()]
            assert found.items[user, : len(rest)].tolist() == rest
    if kind == "unique":
        # Narrow beam: as if the excluded items were not in the catalogue at all.
        for user in range(3):
            keep = ~torch.isin(items, exclude[user])
            smaller = SIDTrie(codes[keep], items[keep], sizes, dense_limit)
            model, other = TableModel(3, sizes), TableModel(3, sizes)
            narrow = rank_items(trie, beam_search(model, trie, 3, 5, exclude=exclude), 5)
            alone = rank_items(smaller, beam_search(other, smaller, 3, 5), 5)
            assert narrow.items[user].tolist() == alone.items[user].tolist()


def test_children_mask_and_advance_agree_with_the_set_of_prefixes():
    sizes = (5, 3, 4)
    codes, items = catalogue(8, 25, sizes)
    prefixes = {tuple(row[: n + 1]) for row in codes.tolist() for n in range(3)}
    for dense_limit in (0, 1 << 20):
        trie = SIDTrie(codes, items, sizes, dense_limit)
        nodes = {(): 0}
        for level in range(3):
            deeper = {}
            for prefix, node in nodes.items():
                mask = trie.children_mask(level, torch.tensor([node]))[0]
                for code in range(sizes[level]):
                    child = trie.advance(level, torch.tensor([node]), torch.tensor([code])).item()
                    known = (*prefix, code) in prefixes
                    assert mask[code].item() == known and (child >= 0) == known
                    if known:
                        deeper[(*prefix, code)] = child
            nodes = deeper
        leaves = dict(zip(map(tuple, codes.tolist()), items.tolist(), strict=True))
        for prefix, node in nodes.items():
            assert trie.items(torch.tensor([node]))[0].tolist() == [leaves[prefix]]
        dead = torch.tensor([-1])
        assert not trie.children_mask(1, dead).any() and trie.items(dead).tolist() == [[0]]


def test_input_order_and_exact_repeats_do_not_matter():
    codes, items = catalogue(5, 30, (4, 5, 3))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    trie = SIDTrie(codes, items, (4, 5, 3))
    other = SIDTrie(torch.cat([codes[order], codes]), torch.cat([items[order], items]), (4, 5, 3))
    for (name, a), (_, b) in zip(trie.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(a, b), name


def test_wide_codebooks_that_do_not_fit_one_sort_key_are_sorted_right():
    sizes = (1 << 30, 1 << 30, 1 << 30)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(1 << 30, (200, 3), generator=generator)
    codes[100:, 0] = codes[:100, 0]
    trie = SIDTrie(codes, torch.arange(1, 201), sizes, dense_limit=0)
    _, item = trie.entries()
    ranking = sorted(range(1, 201), key=lambda i: codes[i - 1].tolist())
    assert item.tolist() == ranking


@pytest.mark.parametrize(
    "codes, items, sizes",
    [
        (torch.tensor([[0, 5]]), torch.tensor([1]), (2, 5)),
        (torch.tensor([[0, -1]]), torch.tensor([1]), (2, 5)),
        (torch.tensor([[0, 1]]), torch.tensor([0]), (2, 5)),
        (torch.tensor([[0, 1]]), torch.tensor([1]), (2, 5, 3)),
        (torch.empty(0, 2), torch.empty(0), (2, 5)),
    ],
)
def test_trie_refuses_codes_outside_the_codebook_and_bad_shapes(codes, items, sizes):
    with pytest.raises(ValueError):
        SIDTrie(codes, items, sizes)


def test_best_sorts_floats_of_every_kind_and_breaks_ties_low():
    scores = torch.tensor([[0.0, -0.0, 1e-30, -1e-30, NEVER, 3.0, -3.0, 3.0]])
    tie = torch.tensor([[5, 4, 0, 0, 0, 9, 0, 8]])
    values, index = best(scores, tie, 8)
    assert index.tolist() == [[7, 5, 2, 1, 0, 3, 6, 4]]
    assert values.tolist() == scores[0, index[0]].unsqueeze(0).tolist()


@pytest.mark.parametrize("n_values", [3, 40, 10**8])
@pytest.mark.parametrize("k, n_columns", [(1, 50), (7, 50), (50, 50), (3, 1000), (7, 2111)])
def test_best_is_a_stable_sort_whether_or_not_there_are_ties(n_values, k, n_columns):
    generator = torch.Generator().manual_seed(n_values)
    scores = -torch.randint(n_values, (5, n_columns), generator=generator).float() / 8
    tie = torch.stack([torch.randperm(n_columns, generator=generator) for _ in range(5)])
    values, index = best(scores, tie, k)
    for row in range(5):
        order = sorted(range(n_columns), key=lambda i: (-float(scores[row, i]), int(tie[row, i])))
        assert index[row].tolist() == order[:k]
    assert torch.equal(values, scores.gather(1, index))


def test_best_asks_for_the_tie_breaks_only_where_there_are_ties():
    asked = []
    scores = torch.arange(4000.0).view(2, 2000)
    index = best(scores, lambda: asked.append(1), 5)[1]
    assert index.tolist() == [[1999, 1998, 1997, 1996, 1995]] * 2 and not asked
    scores[1, :7] = 1e6
    low_last = torch.arange(4000, 0, -1).view(2, 2000)
    index = best(scores, lambda: asked.append(1) or low_last, 5)[1]
    assert index.tolist() == [[1999, 1998, 1997, 1996, 1995], [6, 5, 4, 3, 2]] and asked == [1]


def test_places_of_every_node_hold_its_codes_then_nothing():
    sizes = (5, 6, 4)
    codes, items = catalogue(2, 40, sizes)
    rows = sorted(map(tuple, codes.tolist()))
    for dense_limit in (0, 1 << 20):
        trie = SIDTrie(codes, items, sizes, dense_limit)
        for level in range(3):
            prefixes = sorted({row[:level] for row in rows})
            nodes = torch.tensor([*range(len(prefixes)), -1])
            options, closed = trie.options(level, nodes)
            lowest = trie.lowest_items(level, nodes)
            for number, prefix in enumerate(prefixes):
                places = (closed[number] == 0).nonzero().flatten()
                here = torch.full_like(places, number)
                found, child = trie.follow(level, here, places)
                expected = sorted({row[level] for row in rows if row[:level] == prefix})
                assert found.tolist() == expected
                if options is not None:
                    assert options[number, places].tolist() == expected
                deeper = sorted({row[: level + 1] for row in rows})
                assert [deeper[i] for i in child.tolist()] == [(*prefix, c) for c in expected]
                below = [
                    min(
                        item
                        for row, item in zip(codes.tolist(), items.tolist(), strict=True)
                        if tuple(row[: level + 1]) == (*prefix, code)
                    )
                    for code in expected
                ]
                assert lowest[number, places].tolist() == below
            assert (closed[-1] == NEVER).all()  # the dead beam


def test_beam_regret_counts_the_exact_top_items_that_are_missing():
    exact = torch.tensor([[NEVER, -1.0, -2.0, -3.0, -4.0]])
    found = Generated(torch.tensor([[1, 4, 3]]), torch.tensor([[-1.0, -4.0, -3.0]]))
    assert beam_regret(found, exact, 2).tolist() == [0.5]
    assert beam_regret(found, exact, 1).tolist() == [0.0]


def test_beams_of_a_batch_equal_those_of_its_users_alone():
    sizes = (6, 6, 6)
    codes, items = catalogue(6, 80, sizes)
    trie = SIDTrie(codes, items, sizes)
    together = beam_search(TableModel(4, sizes), trie, 4, 7)
    for user in range(4):
        model = TableModel(1, sizes)
        model.logits = lambda _, prefix, u=user: TableModel(4, sizes).logits(u, prefix)
        alone = beam_search(model, trie, 1, 7)
        assert isinstance(alone, Beams) and torch.equal(alone.nodes[0], together.nodes[user])


def test_compiled_search_equals_eager():
    sizes = (5, 5, 5)
    codes, items = catalogue(9, 60, sizes)
    trie = SIDTrie(codes, items, sizes)
    table = [torch.randn(5, 5, generator=torch.Generator().manual_seed(n)) for n in range(3)]

    def step(level, last, parents):
        return table[0][:2].unsqueeze(1) if level == 0 else table[level][last]

    compiled = torch.compile(beam_search, backend="eager", fullgraph=True)
    eager, fast = beam_search(step, trie, 2, 6), compiled(step, trie, 2, 6)
    assert all(torch.equal(a, b) for a, b in zip(eager[:3], fast[:3], strict=True))
