"""PIT's user-guided selection, and what co-evolution changes and leaves alone."""

import math

import pytest
import torch
from pit_models import (
    EVERY,
    N_ITEMS,
    batch_for,
    counted_prefixes,
    evolving,
    slow_log_prob,
    small_pit,
    train_epoch,
    whole_batch,
)

from recbole_gr.model.pit.selection import select

# Selection


@EVERY
@torch.no_grad()
def test_the_selected_sid_is_the_cheapest_for_the_user_at_every_position(options):
    model = evolving(small_pit(**options))
    batch = batch_for(model, seed=5)
    targets = model.sequence(batch)[:, 1:] if model.whole else batch["item_id"].unsqueeze(1)
    counted = model.counted(batch) if model.whole else torch.ones_like(targets).bool()
    choice = model._choose(batch, targets, counted)
    places, counts = set(), torch.zeros(N_ITEMS + 1, 4)
    for row, position, one in counted_prefixes(batch):
        target = int(one["item_id"])
        candidates = [tuple(sid) for sid in model.pool[target].tolist()]
        losses = [-slow_log_prob(model, one, sid) for sid in candidates]
        place = losses.index(min(losses))
        position = position if model.whole else 0
        assert tuple(choice.codes[row, position].tolist()) == candidates[place]
        counts[target, place] += 1
        places.add(place)
    assert len(places) > 1
    assert torch.equal(choice.counts, counts[choice.items])
    assert torch.equal(choice.items, targets.unique())


@torch.no_grad()
def test_the_item_rule_weighs_what_the_item_owns_of_a_sid():
    model = evolving(small_pit(select="item", index_item_prior="popularity", index_threshold=0.1))
    batch = whole_batch(seed=5)
    targets, counted = model.sequence(batch)[:, 1:], model.counted(batch)
    choice = model._choose(batch, targets, counted)
    fresh = evolving(small_pit(select="item", index_item_prior="popularity", index_threshold=0.1))
    codes, items, weights = fresh.index.edges()
    mass = weights * (fresh.popularity[items] + 1)
    n_strange = 0
    for row, position, one in counted_prefixes(batch):
        target, scores = int(one["item_id"]), []
        candidates = [tuple(sid) for sid in fresh.pool[target].tolist()]
        for sid in candidates:
            same = (codes == torch.tensor(sid)).all(1)
            own = float(mass[same & (items == target)].sum())
            n_strange += own == 0
            share = math.log(own / float(mass[same].sum())) if own else -7.0
            scores.append(slow_log_prob(fresh, one, sid) + max(share, -7.0))
        place = scores.index(max(scores))
        assert tuple(choice.codes[row, position].tolist()) == candidates[place]
    assert n_strange > 0  # some candidates are not in the index


def test_selection_rules_and_ties():
    losses = torch.tensor([[2.0, 1.0, 1.0, 0.5], [3.0, 3.0, 3.0, 9.0]])
    log_prob = torch.tensor([[-1.0, -0.5, -0.5, float("-inf")], [-2.0, -1.0, -3.0, -4.0]])
    assert select(losses, log_prob, "min").tolist() == [1, 0]
    assert select(losses, log_prob, "max").tolist() == [0, 3]
    assert select(losses, log_prob, "top1").tolist() == [1, 1]
    drawn = torch.stack([select(losses, log_prob, "random") for _ in range(300)])
    assert set(drawn[:, 0].tolist()) == {0, 1, 2} and set(drawn[:, 1].tolist()) == {0, 1, 2, 3}


@torch.no_grad()
def test_selection_is_free_of_dropout_and_leaves_the_mode_alone():
    model = evolving(small_pit(dropout=0.5))
    batch = whole_batch()
    targets, counted = model.sequence(batch)[:, 1:], model.counted(batch)
    expected = model._choose(batch, targets, counted).codes
    model.train()
    state = torch.get_rng_state()
    assert torch.equal(model._choose(batch, targets, counted).codes, expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.user_to_token.modules())


def test_one_candidate_equals_the_two_stage_model_step_by_step():
    """With n_candidates 1, and with ablate coevo, phase 2 is phase 1 without Item-to-Token."""
    runs = []
    for options, phase in (
        ({"n_candidates": 1}, 2),
        ({"ablate": "coevo"}, 2),
        ({"lambda_i2t": 0.0}, 1),
    ):
        model = small_pit(dropout=0.2, **options).train()
        model.item_to_token.eval()  # its dropout would draw random numbers in phase 1
        for dropout in model.item_to_token.modules():
            dropout.rate = 0.0
        if phase == 2:
            evolving(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(9)
        losses = []
        for seed in range(3):
            loss = model.calculate_loss(whole_batch(seed=seed))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        model.end_epoch()
        model.eval()
        found = model.generate(whole_batch(seed=7), 10)
        runs.append((losses, found, dict(model.user_to_token.named_parameters())))
    for losses, found, weights in runs[:2]:
        assert losses == runs[2][0]
        assert torch.equal(found.items, runs[2][1].items)
        assert torch.equal(found.scores, runs[2][1].scores)
        assert all(torch.equal(weights[name], runs[2][2][name]) for name in weights)


# Co-evolution


def test_a_frozen_tokenizer_and_its_pool_do_not_change_but_weights_do():
    model = evolving(small_pit())
    tokenizer = {k: v.clone() for k, v in model.item_to_token.state_dict().items()}
    pool, weight = model.pool.clone(), model.index.weight.clone()
    vectors = model.items(torch.arange(N_ITEMS + 1)).detach()
    figures = train_epoch(model, range(3))
    assert all(torch.equal(v, tokenizer[k]) for k, v in model.item_to_token.state_dict().items())
    assert torch.equal(model.pool, pool)
    assert not torch.equal(model.index.weight, weight)
    assert not torch.allclose(model.items(torch.arange(N_ITEMS + 1)), vectors)
    assert 0 < figures["selection"]["left the starting SID"] <= 1
    losses = figures["candidate loss"]
    assert losses["best"] < losses["worst"]
    held = {
        (item, tuple(sid)) for item in range(1, N_ITEMS + 1) for sid in model.pool[item].tolist()
    }
    codes, items, _ = model.index.edges()
    assert {(int(i), tuple(c)) for i, c in zip(items, codes.tolist())} <= held


def test_a_free_tokenizer_brings_new_sids_into_the_index():
    model = evolving(small_pit(freeze_i2t=False, index_threshold=0.0))
    before = set(zip(*(x.tolist() for x in sid_edges(model))))
    tokenizer = model.item_to_token.heads[0].weight.clone()
    train_epoch(model, range(4), lr=1.0)
    assert not torch.equal(tokenizer, model.item_to_token.heads[0].weight)
    after = set(zip(*(x.tolist() for x in sid_edges(model))))
    assert after - before
    # The priors are those of the tokenizer as it is now.
    item = torch.tensor([5])
    held = model.index.weight[5] > 0
    vector = model.items(item).expand(int(held.sum()), -1)
    losses = model.item_to_token.level_losses(vector, model.index.codes[5, held].long()).sum(1)
    assert torch.allclose(model.index.log_prob[5, held], -losses, atol=1e-4)


def sid_edges(model):
    codes, items, _ = model.index.edges()
    return items, codes[:, 0], codes[:, 1], codes[:, 2]


@pytest.mark.parametrize("ablation", ["csa", "i2t", "index"])
def test_ablations_take_out_what_they_name(ablation):
    model = small_pit(ablate=ablation)
    if ablation == "csa":
        torch.nn.init.zeros_(model.items.offset)
        assert model.alignment is None
        train_epoch(model, range(2))
        assert not model.items.offset.any()
    evolving(model)
    figures = train_epoch(model, range(2))
    assert ("i2t" in figures["loss"]) is False and ("csa" in figures["loss"]) == (ablation != "csa")
    if ablation == "i2t":
        assert model.item_to_token is None
        assert torch.equal(model.pool[1:, 0].long(), model.codes[1:])
    assert model.trie.one_sid_each == (ablation == "index")
    assert bool((model.generate(whole_batch(), 10).items > 0).all())
