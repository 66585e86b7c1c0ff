"""Rounds of a PIT whose items evolve: who is judged, what is learned, and that planted groups are
found in the SIDs."""

import math

import pytest
import torch
from models import rows_of
from pit_models import (
    ENCODER,
    EVERY,
    N_ITEMS,
    batch_for,
    counted_prefixes,
    evolving,
    gradients,
    part_losses,
    slow_log_prob,
    small_pit,
    whole_batch,
)
from planted import N_USERS, SIZES, arms_of_one_warm_up, log_prob_of_targets, planted_rows

from recbole_gr.model.pit.behaviour import mutual_information
from recbole_gr.model.pit.fading import move
from recbole_gr.model.pit.moves import (
    best_moves,
    free_sids,
    half_of,
    held_out,
    lower_bounds,
    nearest_items,
    of_mass,
)

ITEMS = {"evolve": "items", "evolve_every": 1, "evolve_held_out": 0.5}


def judging(**options):
    """A model in the first round of its co-evolution, and a batch of it."""
    model = evolving(small_pit(**{**ITEMS, **options})).train()
    model.begin_epoch(0, 10)
    return model, batch_for(model, n_rows=8, seed=3)


def moved_item(model, item=5):
    """Let an item have a second SID, which is free; returns both, the present one first."""
    every = torch.cartesian_prod(*(torch.arange(n) for n in model.sizes))
    free = (every.unsqueeze(1) != model.index.edges()[0]).any(2).all(1)
    new, old = every[free][3:4], model.index.heaviest(torch.tensor([item]))
    move(model.index, torch.tensor([item]), new)
    model.rebuild()
    return new[0].tolist(), old[0].tolist()


# Who is judged


@EVERY
@pytest.mark.parametrize("accept, gain", [("all", "item"), ("halves", "prefix")])
@pytest.mark.parametrize("normalisation", ["codebook", "trie"])
def test_gains_are_those_of_the_users_left_out_target_by_target(
    options, normalisation, accept, gain
):
    rule = {"loss_normalisation": normalisation, "evolve_accept": accept, "evolve_gain": gain}
    model, batch = judging(**options, **rule)
    model.calculate_loss(batch)
    sums, count = torch.zeros_like(model.round_sums), torch.zeros_like(model.round_count)
    model.eval()
    left = held_out(batch["user_id"], 2, 0)
    half = half_of(batch["user_id"], 2) if accept == "halves" else left * 0
    assert 0 < int(left.sum()) < len(left)
    assert len(half[left].unique()) == len(count)
    with torch.no_grad():
        for row, _, one in counted_prefixes(batch):
            if not left[row]:
                continue
            target = int(one["item_id"])
            count[half[row], target] += 1
            own = slow_prefixes(model, one, model.index.heaviest(torch.tensor([target]))[0])
            own = own[:2] if gain == "prefix" else own[2:]  # whole, for both depths
            for m, other in enumerate(model.round_near[target]):
                new = slow_prefixes(model, one, model.index.heaviest(other[None])[0])[:2]
                sums[half[row], target, m] += torch.tensor(new) - torch.tensor(own)
    assert torch.equal(model.round_count, count)
    torch.testing.assert_close(model.round_sums, sums, atol=2e-4, rtol=1e-4)


def slow_prefixes(model, one, sid):
    """Log-probability of the first code, the first two and all, as training normalises them."""
    reading = model._read(one, False)
    codes = model.index.edges()[0]
    total, found = 0.0, []
    for level in range(3):
        shown = sid.clone()
        shown[level:] = 0
        logits = model.user_to_token.logits(reading, shown[None, None])[level][0, 0]
        if model.over_trie:
            below = codes[(codes[:, :level] == sid[:level]).all(1)]
            legal = torch.zeros(len(logits), dtype=torch.bool)
            legal[below[:, level]] = True
            logits = logits.masked_fill(~legal, float("-inf"))
        total += float(logits.log_softmax(0)[sid[level]])
        found.append(total)
    return found


def test_users_left_out_train_nothing_and_other_ones_each_round():
    model, batch = judging()
    left = held_out(batch["user_id"], 2, 0)
    torch.manual_seed(0)
    losses = part_losses(model, batch)
    rest = rows_of(batch, (~left).nonzero().flatten())
    model.fold = None
    model._end_round()
    expected = part_losses(model, rest)
    for name in ("u2t", "item"):
        torch.testing.assert_close(losses[name], expected[name], atol=1e-5, rtol=1e-5)
    folds = []
    for epoch in range(8):
        model.begin_epoch(epoch, 8)
        folds.append(model.fold)
    assert folds == [0, 1, 0, 1, 0, 1, None, None]  # the last quarter moves nothing
    model.begin_epoch(2, 8)
    model.eval()
    assert model._left_out(batch) is None  # evaluation leaves nobody out


def test_a_round_of_several_epochs_is_judged_in_its_last():
    model, batch = judging(evolve_every=2)
    states = []
    for epoch in range(4):
        model.begin_epoch(epoch, 100)
        model.calculate_loss(batch)
        states.append((model.fold, len(model.round_near)))
        model.end_epoch()
    assert states == [(0, 0), (0, N_ITEMS + 1), (1, 0), (1, N_ITEMS + 1)]


def test_a_batch_of_which_all_are_left_out_has_a_finite_loss():
    model, batch = judging()
    left = held_out(batch["user_id"], 2, 0).nonzero().flatten()
    loss = model.calculate_loss(rows_of(batch, left))
    loss.backward()
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# What is learned


@pytest.mark.parametrize("options", [{}, ENCODER], ids=["lazy", "encoder"])
def test_the_loss_of_an_item_is_that_of_the_sum_over_its_sids(options):
    model = evolving(small_pit(**ITEMS, **options, index_item_prior="popularity"))
    batch = batch_for(model, seed=4)
    item = int(batch["item_id"][0])
    sids = moved_item(model, item)
    losses = part_losses(model, batch)
    chosen, total = [], []
    with torch.no_grad():
        for _, _, one in counted_prefixes(batch):
            target = int(one["item_id"])
            own = sids if target == item else model.index.heaviest(torch.tensor([target])).tolist()
            scores = [slow_log_prob(model, one, sid) for sid in own]
            chosen.append(-scores[0] / 3)
            total.append(-math.log(sum(map(math.exp, scores))) / 3)  # nobody shares a SID here
    assert float(losses["u2t"]) == pytest.approx(sum(chosen) / len(chosen), abs=1e-4)
    assert float(losses["item"]) == pytest.approx(sum(total) / len(total), abs=1e-4)
    assert losses["item"] < losses["u2t"]


def test_both_losses_of_the_recommender_weigh_as_one():
    model = evolving(small_pit(**ITEMS, lambda_csa=0.0, lambda_i2t=0.0, lambda_item=3.0))
    moved_item(model)
    batch = whole_batch(seed=2)
    parts, total = part_losses(model, batch), model.calculate_loss(batch)
    expected = 0.25 * parts["u2t"] + 0.75 * parts["item"]
    assert float(total) == pytest.approx(float(expected), abs=1e-5)


def test_the_loss_has_a_gradient_where_rows_are_padded_and_items_have_two_sids():
    model = evolving(small_pit(**ITEMS))
    moved_item(model, int(whole_batch()["item_id"][0]))
    model.calculate_loss(whole_batch()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert all(has for part, has in gradients(model).items())


def test_item_to_token_learns_the_present_sid():
    model = evolving(small_pit(**ITEMS, csa_negatives=1))
    new, _ = moved_item(model)
    item = torch.tensor([5])
    optimizer = torch.optim.Adam(model.item_to_token.parameters(), lr=0.02)
    one = whole_batch(n_rows=1)
    one["item_id_list"][:], one["item_id"][:] = 5, 5
    for _ in range(60):
        optimizer.zero_grad()
        part_losses(model, one)["i2t"].backward()
        optimizer.step()
    proposed, _ = model.item_to_token.propose(model.items(item), 1)
    assert proposed[0, 0].tolist() == new


def test_collaborative_alignment_decides_who_the_neighbours_are():
    model, batch = judging(n_i2t_layers=1)
    everything = torch.arange(N_ITEMS + 1)
    assert torch.equal(model.round_near, nearest_items(model.items(everything).detach(), 8))
    before = model.round_near.clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(10):  # by the loss of the alignment alone
        optimizer.zero_grad()
        part_losses(model, batch)["csa"].backward()
        optimizer.step()
    model._end_round()
    model.begin_epoch(0, 10)
    assert float((model.round_near != before)[1:].float().mean()) > 0.1


# What moves


def test_a_round_moves_the_share_asked_for_and_states_it():
    options = {"evolve_margin": 0.0, "evolve_share": 0.2, "evolve_accept": "all"}
    model, batch = judging(**options)
    model.probe = batch
    model.calculate_loss(batch)
    before, edges = model.index.heaviest(), model.index.edges()[0]
    figures = model.end_epoch()
    changed = (model.index.heaviest() != before).any(1)
    moved = figures["items moved"]
    assert 0 < moved["all"] == float(changed.sum()) <= 0.2 * N_ITEMS
    assert sum(n for name, n in moved.items() if name != "all") == moved["all"]
    new = model.index.heaviest()[changed]
    assert not (new.unsqueeze(1) == edges).all(2).any()  # they were free
    old = {(i, tuple(before[i].tolist())) for i in changed.nonzero().flatten().tolist()}
    codes, items, _ = model.index.edges()
    assert old <= {(i, tuple(c)) for i, c in zip(items.tolist(), codes.tolist())}
    loss = figures["loss over the round"]
    assert loss["after"] <= loss["before"] + 0.05  # the SIDs of before still serve
    assert set(figures["behaviour in the SIDs"]) == {"NMI of the first code"}
    assert not len(model.round_near)
    versions = model.sid_versions()
    assert list(versions) == ["start", f"round {model.round}"]
    assert (versions["start"] == model.codes).all()
    assert (versions[f"round {model.round}"][1:] == model.index.heaviest()[1:]).all()
    assert set(model.moved[:, 1].tolist()) == set(changed.nonzero().flatten().tolist())
    again = judging(**options)[0]
    again.load_other_parameter(model.other_parameter())  # as a checkpoint does
    assert (again.sid_versions()[f"round {model.round}"] == versions[f"round {model.round}"]).all()


@pytest.mark.parametrize("ablate", ["coevo", None])
def test_without_gain_or_co_evolution_nothing_moves(ablate):
    model, batch = judging(ablate=ablate, evolve_margin=1000.0)
    before = model.index.heaviest()
    model.calculate_loss(batch)
    figures = model.end_epoch()
    assert torch.equal(model.index.heaviest(), before)
    assert figures.get("items moved", {"all": 0.0})["all"] == 0.0
    assert (model.fold is None) == (ablate == "coevo")


def test_the_index_of_items_that_evolve_takes_less_than_200_bytes_an_item():
    model = evolving(small_pit(**ITEMS))
    held = model.index.memory_bytes() + model.pool.nbytes + model.pool_log_prob.nbytes
    assert (held + model.trie.memory_bytes()) / N_ITEMS < 200


def test_half_of_the_users_choose_and_the_others_accept():
    """Against loops over the sums of each half; a checkpoint of before goes on as it began."""
    model, batch = judging(evolve_margin=0.5)
    for seed in range(3):  # few users: gains of their own
        model.round_sums += torch.randn(model.round_sums.shape, generator=torch.manual_seed(seed))
        model.round_squares += model.round_sums.square()
        model.round_count += 1
    model.calculate_loss(batch)
    sums, squares, count = model.round_sums, model.round_squares, model.round_count
    codes = model.index.heaviest()
    by_mass = of_mass(codes, model.round_near, model.popularity + 1, model.sizes)
    means = lower_bounds(sums, squares, count, 0.0) + by_mass
    pays = lower_bounds(sums, squares, count, 0.5) + by_mass
    gains, n_accepted = model._gains(codes), 0
    for item in range(1, N_ITEMS + 1):
        of_item = {}
        for half in (0, 1):
            place = int(means[half, item].flatten().argmax())
            if float(means[half, item].flatten()[place]) > 0:
                gain = float(pays[1 - half, item].flatten()[place])
                of_item[place] = max(gain, of_item.get(place, -math.inf))
        for place, gain in enumerate(gains[item].flatten().tolist()):
            assert gain == pytest.approx(of_item.get(place, -math.inf))
        n_accepted += any(gain > 0 for gain in of_item.values())
    before = codes.clone()
    assert 0 < n_accepted
    moved = model.end_epoch()["items moved"]["all"]
    assert 0 < moved <= n_accepted and not torch.equal(model.index.heaviest(), before)

    old, batch = judging(evolve_accept="all")
    old.calculate_loss(batch)
    state = old.other_parameter()
    for name in ("round_sums", "round_squares", "round_count"):
        state[name] = state[name][0]
    again = judging()[0]
    again.load_other_parameter(state)
    again.begin_epoch(0, 10)
    assert torch.equal(again._gains(codes), old._gains(codes))
    again.calculate_loss(batch)


def test_items_that_are_known_well_or_on_the_way_stay():
    model, batch = judging(evolve_accept="all", evolve_margin=0.0)
    model.calculate_loss(batch)
    codes, gains = model.index.heaviest(), model._gains(model.index.heaviest())
    may = gains.amax((1, 2)).isfinite()
    often = model.popularity > model.popularity[may].median()
    assert 0 < int((may & often).sum()) < int(may.sum())
    model.most_taken = float(model.popularity[may].median())
    few = model._gains(codes)
    assert few[often].isinf().all() and torch.equal(few[~often], gains[~often])
    model.most_taken, model.once_faded = None, True
    assert torch.equal(model._gains(codes), gains)  # nobody has moved
    item = int((may & (torch.arange(N_ITEMS + 1) > 0)).nonzero()[0])
    moved_item(model, item)
    then = model._gains(model.index.heaviest())
    assert then[item].isinf().all() and then[may].isfinite().any()


def test_a_round_of_moves_by_lot_moves_as_many_others():
    by_rule, batch = judging(evolve_accept="all", evolve_margin=0.0, evolve_share=1.0)
    by_lot, _ = judging(evolve_accept="random", evolve_margin=0.0, evolve_share=1.0)
    both = []
    for model in (by_rule, by_lot):
        model.calculate_loss(batch)
        both.append(model.end_epoch()["items moved"]["all"])
    assert both[0] > 0 and both[1] >= 0.5 * both[0]  # a place may be taken
    assert not torch.equal(by_rule.index.heaviest(), by_lot.index.heaviest())


# Planted groups


def test_rounds_with_the_true_probabilities_bring_the_groups_into_the_first_codes():
    """Of the rule alone: users of a group take its items, and what predicts them is known."""
    _, group = planted_rows()
    n, generator = len(group), torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(s, (n,), generator=generator) for s in SIZES], 1)
    mass, found = torch.ones(n), [mutual_information(codes[1:, 0], group[1:])]
    near = torch.zeros(n, 8, dtype=torch.long)
    for item in range(1, n):  # every other neighbour is of the item's group
        own = (group == group[item]).nonzero().flatten()
        near[item, ::2] = own[torch.randint(len(own), (4,), generator=generator)]
        near[item, 1::2] = torch.randint(1, n, (4,), generator=generator)
    for _ in range(15):
        log_prob = torch.empty(n, n, 2)  # of each item's prefixes, for a user of an item's group
        for depth in (1, 2):
            same = (codes[:, None, :depth] == codes[None, :, :depth]).all(2).float()
            of_group = (group[:, None] == group[None]).float() + 0.02
            log_prob[..., depth - 1] = ((of_group @ same) / of_group.sum(1, keepdim=True)).log()
        rows = torch.arange(n)
        own = log_prob[rows, rows].unsqueeze(1)
        bounds = log_prob[rows.unsqueeze(1), near] - own
        gains = bounds + of_mass(codes, near, mass, SIZES)
        items, neighbours, depths = best_moves(gains, near, n // 10)
        new, granted = free_sids(codes[neighbours], depths, codes[1:], SIZES)
        codes[items[granted]] = new[granted]
        found.append(mutual_information(codes[1:, 0], group[1:]))
    assert found[0] < 0.25 and found[-1] > 0.6


@pytest.mark.slow
def test_planted_groups_are_found_and_pay_on_held_out_users():
    """Content and starting SIDs know nothing of the groups: what SIDs learn is from behaviour."""
    every, group = planted_rows(n_users=N_USERS + 4000)
    rows = rows_of(every, torch.arange(N_USERS))
    others = rows_of(every, torch.arange(N_USERS, N_USERS + 4000))  # never trained on
    arms = arms_of_one_warm_up(rows, {"coevo": {"ablate": "coevo"}, "items": {}}, 8, 20)
    without, evolved = (log_prob_of_targets(model, others) for model, _ in arms.values())
    gain = evolved - without
    assert float(gain.mean()) > 3 * float(gain.std()) / math.sqrt(len(gain))
    agreement = {
        name: mutual_information(model.index.heaviest()[1:, 0], group[1:])
        for name, (model, _) in arms.items()
    }
    assert agreement["items"] > agreement["coevo"] + 0.2
    model, figures = arms["items"]
    assert model.trie.max_sharing == 1  # distinct SIDs stay distinct
    noted = [f["behaviour in the SIDs"]["NMI of the first code"] for f in figures]
    assert noted[-1] > noted[0] + 0.2  # by the users that the model knows, without the groups
