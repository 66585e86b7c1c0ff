"""Moves of items to other SIDs against plain loops, and the index that follows them."""

import math

import pytest
import torch
from models import random_table

from recbole_gr.model.pit.behaviour import behaviour_clusters, mutual_information
from recbole_gr.model.pit.fading import fade, move
from recbole_gr.model.pit.index import BeamIndex
from recbole_gr.model.pit.moves import (
    accepted_by_others,
    best_moves,
    drawn,
    free_sids,
    half_of,
    held_out,
    lower_bounds,
    nearest_items,
    of_mass,
    prefix_mass,
    what_pays,
)

SIZES = (4, 3, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_folds_share_all_users_about_evenly():
    users = torch.arange(1, 4001)
    folds = torch.stack([held_out(users, 4, fold) for fold in range(4)])
    assert bool((folds.sum(0) == 1).all())
    assert int(folds.sum(1).min()) > 900 and int(folds.sum(1).max()) < 1100


def test_halves_cut_every_fold_in_two():
    users = torch.arange(1, 4001)
    for n_folds in (2, 4, 7):
        half = half_of(users, n_folds)
        for fold in range(n_folds):
            share = half[held_out(users, n_folds, fold)].float().mean()
            assert 0.4 < float(share) < 0.6


def test_nearest_items_are_those_of_the_highest_cosine(monkeypatch):
    vectors = torch.randn(20, 4, generator=generator())
    near = nearest_items(vectors, 3)
    for item in range(1, 20):
        cosine = torch.nn.functional.cosine_similarity(vectors[item][None], vectors, 1)
        others = [other for other in range(1, 20) if other != item]
        best = sorted(others, key=lambda other: -float(cosine[other]))[:3]
        assert near[item].tolist() == best
    assert near[0].tolist() == [0, 0, 0]
    assert nearest_items(vectors[:3], 3)[1].tolist() == [2, 0, 0]
    monkeypatch.setattr("recbole_gr.model.pit.moves.MOST_COMPARED", 8)
    parts = [set(nearest_items(vectors, 3, seed).flatten().tolist()) - {0} for seed in range(2)]
    assert all(len(part) <= 8 for part in parts) and parts[0] != parts[1]


def test_mass_below_a_prefix_is_that_of_its_items():
    codes = torch.stack([torch.randint(n, (30,), generator=generator(n)) for n in SIZES], 1)
    mass = torch.rand(30, generator=generator())
    below = prefix_mass(codes, mass, SIZES)
    for item in range(30):
        for depth in (1, 2):
            same = [j for j in range(30) if torch.equal(codes[j, :depth], codes[item, :depth])]
            assert float(below[item, depth - 1]) == pytest.approx(float(mass[same].sum()), rel=1e-5)


def test_a_bound_is_the_mean_less_standard_errors_of_a_pooled_variance():
    gains = {1: [0.5, 1.5, 1.0], 2: [2.0], 3: []}
    count = torch.tensor([0.0, 3, 1, 0])
    sums, squares = torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)
    for item, values in gains.items():
        sums[item], squares[item] = sum(values), sum(v * v for v in values)
    bound = lower_bounds(sums, squares, count, 2.0).flatten().tolist()
    pooled = 0.5 / 2  # squares about the mean over degrees of freedom, of all items
    variance = (0.5 + 2 * pooled) / (2 + 2)
    assert bound[1] == pytest.approx(1.0 - 2 * math.sqrt(variance / 3))
    assert bound[2] == pytest.approx(2.0 - 2 * math.sqrt(pooled))
    assert bound[3] == bound[0] == -math.inf


@pytest.mark.parametrize("seed", range(3))
def test_the_best_moves_are_those_of_a_loop_over_items_neighbours_and_depths(seed):
    n = 25
    codes = torch.stack([torch.randint(s, (n,), generator=generator(seed + s)) for s in SIZES], 1)
    near = torch.randint(0, n, (n, 3), generator=generator(seed))
    bounds = torch.randn(n, 3, 2, generator=generator(seed))
    mass = 1 + torch.rand(n, generator=generator(seed)) * 5
    gains = bounds + of_mass(codes, near, mass, SIZES)
    items, neighbours, depths = best_moves(gains, near, 6)
    expected = {}
    for item in range(1, n):
        for m in range(3):
            other = int(near[item, m])
            for depth in (1, 2):
                own, new = codes[item, :depth], codes[other, :depth]
                if other == 0 or torch.equal(own, new):
                    continue
                below = [
                    float(sum(mass[j] for j in range(n) if torch.equal(codes[j, :depth], prefix)))
                    for prefix in (own, new)
                ]
                gain = float(bounds[item, m, depth - 1])
                gain += math.log(below[0]) - math.log(below[1] + float(mass[item]))
                if gain > expected.get(item, (0,))[0]:
                    expected[item] = gain, other, depth
    ranked = sorted(expected, key=lambda item: -expected[item][0])[:6]
    assert items.tolist() == ranked
    found = list(zip(neighbours.tolist(), depths.tolist()))
    for item, (other, depth) in zip(ranked, found):
        assert torch.equal(codes[other, :depth], codes[expected[item][1], :depth])
        assert depth == expected[item][2]


def test_a_share_of_the_whole_sid_is_what_an_item_has():
    codes = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 2, 0], [2, 0, 0]])
    mass = torch.tensor([1.0, 2, 3, 4, 5])
    near = torch.tensor([[0, 0], [3, 4], [3, 0], [1, 2], [1, 3]])
    gain = of_mass(codes, near, mass, SIZES, of_items=True)
    assert gain[0].isinf().all() and gain[2, 1].isinf().all()
    assert gain[1, 0, 0].isinf()  # the prefix that it has
    assert float(gain[1, 0, 1]) == pytest.approx(math.log(5) - math.log(4 + 2))
    assert float(gain[1, 1, 0]) == pytest.approx(math.log(5) - math.log(5 + 2))
    assert float(gain[4, 0, 0]) == pytest.approx(math.log(5) - math.log(9 + 5))
    assert float(gain[4, 0, 1]) == pytest.approx(math.log(5) - math.log(5 + 5))


@pytest.mark.parametrize("seed", range(3))
def test_a_lot_draws_as_many_items_as_a_rule_moves(seed):
    gains = torch.randn(40, 3, 2, generator=generator(seed)) - 1
    by_mass = torch.zeros_like(gains).masked_fill(gains < -2, -math.inf)
    by_mass[5:9] = -math.inf
    gains = gains.masked_fill(by_mass.isinf(), -math.inf)
    lot = drawn(gains, by_mass, seed)
    assert torch.equal(lot, drawn(gains, by_mass, seed))
    allowed = lot.isfinite()
    assert bool((by_mass[allowed] == 0).all())
    moving = (gains.amax((1, 2)) > 0).sum()
    assert int((lot.amax((1, 2)) > 0).sum()) == int(moving)
    near = torch.arange(120).view(40, 3)
    assert len(best_moves(lot, near, 40)[0]) == int(moving)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_half_chooses_pays_as_the_other_half_has_it(seed):
    n, near = 20, torch.randint(1, 20, (20, 3), generator=generator(seed))
    chosen = torch.randn(2, n, 3, 2, generator=generator(seed)) - 1
    accepted = torch.randn(2, n, 3, 2, generator=generator(seed + 1))
    chosen[0, 4], accepted[1, 5] = -math.inf, -math.inf  # an item without a target in a half
    gains = accepted_by_others(chosen, accepted)
    expected = {}
    for item in range(n):
        for half in (0, 1):
            best = int(chosen[half, item].flatten().argmax())
            if float(chosen[half, item].flatten()[best]) > 0:
                pays = float(accepted[1 - half, item].flatten()[best])
                expected[item, best] = max(pays, expected.get((item, best), -math.inf))
    assert len(expected) > 10
    for item in range(n):
        for place, gain in enumerate(gains[item].flatten().tolist()):
            assert gain == pytest.approx(expected.get((item, place), -math.inf))
    items, _, _ = best_moves(gains, near, n)
    paying = {item for (item, _), gain in expected.items() if gain > 0}
    assert set(items.tolist()) == paying


def test_the_best_of_noisy_gains_is_not_accepted_by_others_more_often_than_noise_allows():
    """Gains of which none is any: all users let two of three items move, halves hardly any."""
    n, most = 4000, 4000
    near = torch.randint(1, n, (n, 8), generator=generator())
    half = torch.randint(2, (n, 3), generator=generator(1))  # of three targets
    each = torch.randn(n, 3, 8, 2, generator=generator(2))
    parts = [torch.ones(n, 3, dtype=torch.bool)], [half == 0, half == 1]
    moved = []
    for groups in parts:
        weight = torch.stack(groups).float()
        sums = torch.einsum("gnt,ntmd->gnmd", weight, each)
        squares = torch.einsum("gnt,ntmd->gnmd", weight, each.square())
        count = weight.sum(2)
        pays = what_pays(sums, squares, count, torch.zeros(n, 8, 2), 1.0)
        moved.append(len(best_moves(pays, near, most)[0]) / n)
    assert moved[0] > 0.6
    assert moved[1] < 2 * 0.16 + 0.02  # two tries at one standard error


@pytest.mark.parametrize("seed", range(4))
def test_sids_are_free_below_the_prefix_and_nobody_gets_the_same(seed):
    every = torch.cartesian_prod(*(torch.arange(n) for n in SIZES))
    held = every[torch.randperm(60, generator=generator(seed))[:40]]
    m = 18
    prefixes = every[torch.randint(60, (m,), generator=generator(seed + 9))]
    depths = torch.randint(1, 3, (m,), generator=generator(seed))
    codes, granted = free_sids(prefixes, depths, held, SIZES)
    taken, load = set(map(tuple, held.tolist())), {}
    for sid in held.tolist() + [p for p, d in zip(prefixes.tolist(), depths) if d > 1]:
        load[tuple(sid[:2])] = load.get(tuple(sid[:2]), 0) + 1
    for wanted, depth, sid, given in zip(
        prefixes.tolist(), depths.tolist(), codes.tolist(), granted
    ):
        assert sid[:depth] == wanted[:depth]
        if given:
            assert tuple(sid) not in taken
            taken.add(tuple(sid))
        else:  # it was the last one there: nothing is free any more, whoever has it
            below = [s for s in taken if list(s[:2]) == sid[:2]]
            later = [c for c, g in zip(codes.tolist(), granted) if g and c[:2] == sid[:2]]
            assert len(set(below) | set(map(tuple, later))) == SIZES[2]
    first = (depths == 1).nonzero().flatten()[:1]
    sid = codes[first[0]].tolist()  # who chooses first below a code takes the emptiest next one
    assert load.get(tuple(sid[:2]), 0) == min(load.get((sid[0], c), 0) for c in range(SIZES[1]))


def test_reserved_sids_let_no_collision_undo_a_move():
    """Random moves, many times: no SID is ever that of two items, fading ones included."""
    table = random_table(30, SIZES)
    index = BeamIndex(table.codes.clamp_min(0), SIZES, 2, 0, 0.5, 1.0, 0.01)
    before = index.memory_bytes()
    for seed in range(12):
        fade(index)
        items = torch.randperm(30, generator=generator(seed))[:6] + 1
        neighbours = torch.randint(1, 31, (6,), generator=generator(seed))
        depths = torch.randint(1, 3, (6,), generator=generator(seed))
        held = index.edges()[0]
        new, granted = free_sids(index.heaviest(neighbours), depths, held, SIZES)
        move(index, items[granted], new[granted])
        codes, owners, _ = index.edges()
        assert len(codes.unique(dim=0)) == len(codes)
        assert set(owners.tolist()) == set(range(1, 31))
        assert torch.equal(index.heaviest(items[granted]), new[granted])
    assert index.memory_bytes() == before
    assert index.trie().max_sharing == 1


def test_the_sid_of_before_stays_and_fades():
    table = random_table(6, SIZES)
    start = table.codes.clamp_min(0)
    index = BeamIndex(start, SIZES, 2, 0, 0.5, 1.0, 0.1)
    new = torch.tensor([[3, 2, 4]])
    assert not (start == new).all(1).any()
    item = torch.tensor([4])
    move(index, item, new)
    seen = []
    for _ in range(4):
        codes, owners, weight = index.edges()
        seen.append(
            {tuple(c): float(w) for c, w in zip(codes[owners == 4].tolist(), weight[owners == 4])}
        )
        fade(index)
    now, old = (3, 2, 4), tuple(start[4].tolist())
    assert seen[0] == pytest.approx({now: 2 / 3, old: 1 / 3})
    assert seen[1] == pytest.approx({now: 5 / 6, old: 1 / 6})
    assert seen[2] == seen[3] == {now: 1.0}  # 1/12 is below the threshold
    others = torch.tensor([1, 2, 3, 5, 6])
    assert torch.equal(index.heaviest(others), start[others])
    assert not index.weight[0].any()


def test_clusters_of_behaviour_are_found():
    group = torch.arange(60) % 5
    users = torch.arange(200).repeat_interleave(8)
    members = group.argsort(stable=True).view(5, 12)
    items = members[users % 5, torch.randint(12, (1600,), generator=generator())]
    pairs = torch.stack([users, items], 1).unique(dim=0)
    clusters = behaviour_clusters(pairs[:, 0], pairs[:, 1], 61, 5)
    assert mutual_information(clusters[:60], group) > 0.9
    assert int(clusters[60]) == -1  # taken by nobody


def test_mutual_information_by_hand():
    a, b = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    h_a, h_b = math.log(2), 1.5 * math.log(2)
    assert mutual_information(a, b) == pytest.approx(2 * h_a / (h_a + h_b))
    assert mutual_information(a, torch.tensor([0, 1, 0, 1])) == pytest.approx(0, abs=1e-9)
    assert mutual_information(a, torch.tensor([1, 1, 0, -1])) == pytest.approx(1)
