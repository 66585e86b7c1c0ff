"""Collision policies against slow references."""

from collections import Counter, defaultdict

import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.collision import resolve, sinkhorn
from recbole_gr.sid.suffix import add_suffix


def sids(codes):
    return [tuple(row) for row in codes.tolist()]


def random_codes(n_items, sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, s, (n_items,), generator=generator) for s in sizes], 1)


def problem(n_items, n_prefixes, size, seed=0):
    """Items in the plane, codes ``[N, 2]`` with the nearest point as last code, and distances."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(n_items, 2, generator=generator)
    points = torch.randn(size, 2, generator=generator)
    distances = torch.cdist(items, points).square()
    prefix = torch.randint(0, n_prefixes, (n_items,), generator=generator)
    return torch.stack([prefix, distances.argmin(1)], 1), (n_prefixes, size), distances


def test_suffix_level_makes_every_sid_unique():
    codes = random_codes(500, (6, 5))
    resolved, sizes = resolve(codes, (6, 5), "suffix")
    assert len(set(sids(resolved))) == 500
    assert torch.equal(resolved[:, :2], codes)
    assert sizes == (6, 5, max(Counter(sids(codes)).values()))


def test_suffix_numbers_the_items_of_a_sid_in_item_order():
    codes = random_codes(300, (4, 3))
    resolved, _ = add_suffix(codes, (4, 3))
    seen, expected = Counter(), []
    for sid in sids(codes):
        expected.append(seen[sid])
        seen[sid] += 1
    assert resolved[:, 2].tolist() == expected


def test_suffix_level_is_there_even_without_collisions():
    resolved, sizes = resolve(torch.tensor([[0], [2], [1]]), (3,), "suffix")
    assert resolved.tolist() == [[0, 0], [2, 0], [1, 0]]
    assert sizes == (3, 1)


def test_share_keeps_the_codes():
    codes = random_codes(50, (3, 2))
    resolved, sizes = resolve(codes, (3, 2), "share")
    assert torch.equal(resolved, codes) and sizes == (3, 2)


def test_sinkhorn_moves_only_colliding_items_to_free_codes_of_their_prefix():
    codes, sizes, distances = problem(400, 20, 32)
    resolved, new_sizes = resolve(
        codes, sizes, "sinkhorn", last_level_distances=lambda rows: distances[rows]
    )
    assert new_sizes == sizes
    assert torch.equal(resolved[:, 0], codes[:, 0])
    before, after = Counter(sids(codes)), sids(resolved)
    assert len(set(after)) == 400
    for old, new in zip(sids(codes), after):
        if before[old] == 1:
            assert new == old
    # One item of each colliding group, the nearest, stays.
    for sid in [sid for sid, count in before.items() if count > 1]:
        group = [row for row, old in enumerate(sids(codes)) if old == sid]
        stays = [row for row in group if after[row] == sid]
        assert stays == [min(group, key=lambda row: float(distances[row, sid[1]]))]


def test_sinkhorn_leaves_only_what_no_code_is_free_for(caplog):
    codes, sizes, distances = problem(300, 6, 32, seed=1)
    resolved, _ = resolve(
        codes, sizes, "sinkhorn", last_level_distances=lambda rows: distances[rows]
    )
    per_prefix = Counter(codes[:, 0].tolist())
    fewest = sum(max(0, count - 32) for count in per_prefix.values())
    assert fewest > 0
    assert 300 - len(set(sids(resolved))) == fewest
    assert f"{fewest} items still share a SID" in caplog.text


def test_sinkhorn_assignment_is_near_the_cheapest_one():
    from scipy.optimize import linear_sum_assignment

    codes, sizes, distances = problem(200, 12, 32, seed=2)
    resolved, _ = resolve(
        codes, sizes, "sinkhorn", last_level_distances=lambda rows: distances[rows]
    )
    # The cheapest way to place the movers, the staying items' codes being taken.
    moved = (resolved != codes).any(1)
    taken = defaultdict(set)
    for prefix, code in codes.tolist():
        taken[prefix].add(code)
    cheapest = naive = 0.0
    for prefix, used in taken.items():
        rows = (moved & (codes[:, 0] == prefix)).nonzero().squeeze(1)
        free = [code for code in range(32) if code not in used]
        cost = distances[rows][:, free].double().numpy()
        cheapest += cost[linear_sum_assignment(cost)].sum()
        naive += cost[range(len(rows)), range(len(rows))].sum()
    cost = float(distances[moved, resolved[moved, 1]].sum())
    assert cheapest <= cost + 1e-6
    assert cost < cheapest + 0.1 * (naive - cheapest)


def test_sinkhorn_is_the_same_each_time_and_in_small_chunks(monkeypatch):
    codes, sizes, distances = problem(300, 10, 64, seed=3)
    results = []
    for chunk in (2**25, 2**25, 64):
        monkeypatch.setattr("recbole_gr.sid.collision._CHUNK_VALUES", chunk)
        results.append(
            resolve(codes, sizes, "sinkhorn", last_level_distances=lambda rows: distances[rows])[0]
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_identical_items_spread_over_distinct_codes():
    distances = torch.tensor([[0.0, 1, 2, 3]]).repeat(4, 1)
    codes = torch.zeros(4, 1, dtype=torch.int64)
    resolved, _ = resolve(codes, (4,), "sinkhorn", last_level_distances=lambda r: distances[r])
    assert resolved.squeeze(1).tolist() == [0, 1, 2, 3]


def test_sinkhorn_then_suffix_is_unique_with_a_shorter_last_level():
    codes, sizes, distances = problem(300, 6, 32, seed=1)
    resolved, new_sizes = resolve(
        codes, sizes, ["sinkhorn", "suffix"], last_level_distances=lambda rows: distances[rows]
    )
    assert len(set(sids(resolved))) == 300
    assert add_suffix(codes, sizes)[1][-1] == 7
    assert new_sizes[-1] < 7


def test_transport_plan_gives_each_item_one_unit_and_each_code_one_at_most():
    torch.manual_seed(0)
    cost = torch.rand(3, 5, 8, dtype=torch.float64)
    present = torch.ones(3, 5, dtype=torch.bool)
    present[1, 3:] = False
    blocked = torch.zeros(3, 8, dtype=torch.bool)
    blocked[:, 2] = True
    plan = sinkhorn(cost, present, blocked, epsilon=0.1, iterations=300).exp()
    assert torch.allclose(plan.sum(2), present.double(), atol=1e-6)
    assert float(plan.sum(1).max()) <= 1 + 1e-9
    assert float(plan[:, :, 2].max()) == 0


def test_sharper_plans_cost_less():
    torch.manual_seed(0)
    cost = torch.rand(1, 5, 8, dtype=torch.float64)
    full = torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 8, dtype=torch.bool)
    costs = [
        float((sinkhorn(cost, *full, epsilon=e, iterations=200).exp() * cost).sum())
        for e in (1.0, 0.1, 0.01)
    ]
    assert costs[0] > costs[1] > costs[2]


def test_unknown_policy_and_missing_distances_are_refused():
    with pytest.raises(ConfigError, match="unknown policy 'sufix', did you mean 'suffix'"):
        resolve(torch.zeros(2, 1).long(), (2,), "sufix")
    with pytest.raises(ConfigError, match="only use suffix or share"):
        resolve(torch.zeros(2, 1).long(), (2,), "sinkhorn")
