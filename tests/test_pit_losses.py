"""Who trains whom in PIT, its losses against sums over single targets, and its proposals."""

import math

import pytest
import torch
from pit_models import (
    ARCHITECTURES,
    EVERY,
    LAZY,
    N_ITEMS,
    NAMES,
    batch_for,
    counted_prefixes,
    evolving,
    gradients,
    part_losses,
    slow_log_prob,
    small_pit,
    whole_batch,
)
from recbole.data.interaction import Interaction

from recbole_gr.generation.beam_search import best
from recbole_gr.model.pit import model as pit_module
from recbole_gr.model.pit.alignment import draw_negatives

# torch.compile


@pytest.mark.slow
@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("normalisation", ["codebook", "trie"])
@pytest.mark.parametrize("options", ARCHITECTURES, ids=NAMES)
def test_the_loss_in_compiled_parts_equals_the_whole(options, normalisation, phase):
    model = small_pit(**options, loss_normalisation=normalisation)
    if phase == 2:
        evolving(model)
    losses = []
    for compute in (model.calculate_loss, model.compiled_loss(backend="eager")):
        for seed in range(2):
            torch.manual_seed(seed)  # of the negatives
            losses.append(compute(batch_for(model, seed=seed)))
    assert torch.allclose(losses[0], losses[2], atol=1e-5)
    assert torch.allclose(losses[1], losses[3], atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("normalisation", ["codebook", "trie"])
def test_the_compiler_leaves_loss_and_gradients_as_they_are(normalisation):
    shape = {"n_layers": 1, "n_context_layers": 0}
    model = evolving(small_pit(**shape, loss_normalisation=normalisation))
    batches = [whole_batch(n_rows=rows, max_length=longest) for rows, longest in ((4, 6), (7, 9))]
    results = []
    for compute in (model.calculate_loss, model.compiled_loss(backend="aot_eager")):
        for batch in batches:
            torch.manual_seed(0)
            loss = compute(batch)
            parameters = [p for p in model.parameters() if p.requires_grad]
            results.append((loss, *torch.autograd.grad(loss, parameters)))
    for eager, compiled in zip(results[:2], results[2:]):
        for a, b in zip(eager, compiled, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


# Gradients (the paper's stop-gradients; the table of who trains whom)


@EVERY
@pytest.mark.parametrize("phase", [1, 2])
def test_each_loss_trains_the_modules_it_should_and_no_other(options, phase):
    item_history = options.get("history_input") != "sid"
    expected = {
        "u2t": {"u2t", *(["history", "items"] if item_history else [])},
        "i2t": {"i2t"},
        "csa": {"alignment", "items"},
    }
    for name, trained in expected.items():
        model = small_pit(**options, freeze_i2t=False)
        if phase == 2:
            evolving(model)
        part_losses(model, batch_for(model))[name].backward()
        assert {part for part, has in gradients(model).items() if has} == trained, name


@EVERY
def test_the_alignment_moves_the_vectors_of_judged_items_only(options, monkeypatch):
    model = small_pit(**options)
    batch = batch_for(model)
    drawn = [7, 11, 13, 17]

    def draw(own, n_items, shape):
        items = torch.tensor(drawn).expand(shape)
        return items, torch.ones(shape, dtype=torch.bool)

    monkeypatch.setattr(pit_module, "draw_negatives", draw)
    part_losses(model, batch)["csa"].backward()
    targets = model.sequence(batch)[:, 1:] if model.whole else batch["item_id"]
    judged = set(targets.flatten().tolist()) - {0} | set(drawn)
    moved = model.items.offset.grad.abs().sum(1).nonzero().flatten().tolist()
    assert set(moved) - {0} == judged
    assert all(p.grad is None for p in model.user_to_token.parameters())


def test_the_history_can_be_kept_out_of_the_item_vectors():
    model = small_pit(detach_history=True)
    part_losses(model, whole_batch())["u2t"].backward()
    assert {name for name, has in gradients(model).items() if has} == {"u2t", "history"}


def test_frozen_item_to_token_has_no_loss_in_co_evolution():
    model = evolving(small_pit())
    assert set(part_losses(model, whole_batch())) >= {"u2t", "csa"}
    assert "i2t" not in part_losses(model, whole_batch())
    assert not any(p.requires_grad for p in model.item_to_token.parameters())


# Losses


@EVERY
@pytest.mark.parametrize("phase", [1, 2])
@torch.no_grad()
def test_the_losses_equal_those_computed_target_by_target(options, phase, monkeypatch):
    model = small_pit(**options, freeze_i2t=False)
    if phase == 2:
        evolving(model)
    batch = batch_for(model, seed=3)
    monkeypatch.setattr(
        pit_module,
        "draw_negatives",
        lambda own, n_items, shape: (
            torch.tensor([7, 11, 13, 17]).expand(shape),
            torch.tensor([True, False, True, True]).expand(shape),
        ),
    )
    losses = part_losses(model, batch)
    user, item, csa = [], [], []
    for _, _, one in counted_prefixes(batch):
        target = int(one["item_id"])
        candidates = [tuple(model.codes[target].tolist())]
        if phase == 2:
            codes, _ = model._propose(torch.tensor([target]))
            candidates = [tuple(sid) for sid in codes[0].tolist()]
        scores = [slow_log_prob(model, one, sid) for sid in candidates]
        user.append(-max(scores) / 3)
        chosen = torch.tensor([candidates[scores.index(max(scores))]])
        vector = model.items(torch.tensor([target]))
        item.append(float(model.item_to_token.level_losses(vector, chosen).mean()))
        reading = model._read(one, False)
        states = model.user_to_token.item_states(reading)
        for judged, label in ((target, 1.0), (7, 0.0), (13, 0.0), (17, 0.0)):
            bias = torch.zeros(1, 1, 1, states.shape[1])
            vectors = model.items(torch.tensor([[judged]]))
            logit = float(model.alignment(states, vectors, bias)[0, 0])
            csa.append(math.log1p(math.exp(-logit if label else logit)))
    for name, values in (("u2t", user), ("i2t", item), ("csa", csa)):
        expected = sum(values) / len(values)
        assert float(losses[name]) == pytest.approx(expected, abs=1e-4), name


@pytest.mark.parametrize("history", ["item", "sid"])
def test_whole_sequences_give_the_loss_and_gradients_of_their_prefix_samples(history):
    options = {**LAZY, "history_input": history, "lambda_csa": 0.0, "lambda_i2t": 0.0}
    whole = small_pit(**options)
    prefix = small_pit(**options, train_sample="prefix")
    batch = whole_batch(n_rows=3)
    batch["n_targets"][1] = 1
    whole.calculate_loss(batch).backward()
    losses = [prefix.calculate_loss(one) for _, _, one in counted_prefixes(batch)]
    torch.stack(losses).mean().backward()
    for (name, a), b in zip(whole.named_parameters(), prefix.parameters(), strict=True):
        a, b = (torch.zeros_like(p) if p.grad is None else p.grad for p in (a, b))
        assert torch.allclose(a, b, atol=1e-5), name


def test_padding_does_not_change_the_losses(monkeypatch):
    model = evolving(small_pit(freeze_i2t=False))
    draw = lambda own, n, shape: (torch.full(shape, 5), torch.ones(shape).bool())  # noqa: E731
    monkeypatch.setattr(pit_module, "draw_negatives", draw)
    batch = whole_batch()
    wide = Interaction({name: batch[name] for name in batch.columns})
    wide["item_id_list"] = torch.nn.functional.pad(batch["item_id_list"], (0, 4))
    narrow, padded = part_losses(model, batch), part_losses(model, wide)
    for name in ("u2t", "i2t", "csa"):
        assert torch.allclose(narrow[name], padded[name], atol=1e-5), name


def test_drawn_items_are_even_over_those_the_user_has_not_taken():
    own = torch.tensor([[1, 2, 0], [5, 5, 3]])
    items, usable = draw_negatives(own, 7, (2, 3000))
    for row, taken in enumerate(({1, 2}, {3, 5})):
        left = items[row][usable[row]].bincount(minlength=7)
        assert {i for i in range(7) if left[i] == 0} == {0, *taken}
        assert int(left[left > 0].min()) > 0.8 * int(left.max())


# Item-to-Token


@torch.no_grad()
def test_proposals_equal_the_search_over_all_sids():
    model = small_pit()
    vectors = model.items(torch.arange(1, 6))
    codes, scores = model.item_to_token.propose(vectors, 60)
    every = torch.cartesian_prod(*(torch.arange(n) for n in (4, 5, 3)))
    for row in range(5):
        wide = vectors[row].expand(60, -1)
        exact = -model.item_to_token.level_losses(wide, every).sum(1)
        values, order = best(exact[None], torch.arange(60)[None], 60)
        assert torch.equal(codes[row], every[order[0]])
        assert torch.allclose(scores[row], values[0], atol=1e-4)
    narrow, _ = model.item_to_token.propose(vectors, 4)
    assert narrow.shape == (5, 4, 3)
    for row in narrow.tolist():
        assert len(set(map(tuple, row))) == 4


@torch.no_grad()
def test_the_pool_of_every_item_holds_its_starting_sid_first():
    model = evolving(small_pit())
    assert torch.equal(model.pool[1:, 0].long(), model.codes[1:])
    for row in model.pool[1:].tolist():
        assert len(set(map(tuple, row))) == 4
    proposed, _ = model.item_to_token.propose(model.items(torch.arange(1, N_ITEMS + 1)), 4)
    for item, candidates in enumerate(proposed.tolist(), start=1):
        start = model.codes[item].tolist()
        others = [sid for sid in candidates if sid != start][:3]
        assert model.pool[item, 1:].tolist() == others
