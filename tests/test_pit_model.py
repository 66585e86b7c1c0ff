"""PIT's losses, gradients, selection and inference against slow references."""

import math

import pytest
import torch
from models import random_table, rows_of
from pit_models import (
    ENCODER,
    LAZY,
    N_ITEMS,
    SMALL_PIT,
    batch_for,
    evolving,
    small_pit,
    whole_batch,
)
from recbole.data.interaction import Interaction

from recbole_gr.errors import ConfigError
from recbole_gr.generation import TAIL_SCORE, best
from recbole_gr.model.pit import model as pit_module
from recbole_gr.model.pit.alignment import draw_negatives
from recbole_gr.model.pit.selection import path_losses, select

SID_HISTORY = {"history_input": "sid"}
ARCHITECTURES = [LAZY, ENCODER, {**LAZY, **SID_HISTORY}, {**ENCODER, **SID_HISTORY}]
NAMES = ["lazy", "encoder", "lazy-sid", "encoder-sid"]
EVERY = pytest.mark.parametrize("options", ARCHITECTURES, ids=NAMES)


def single(user, items, end):
    """The first ``end`` of ``items`` as a history, the next one as the target."""
    return Interaction(
        {
            "user_id": torch.tensor([user]),
            "item_id_list": items[:end].unsqueeze(0),
            "item_length": torch.tensor([end]),
            "item_id": items[end : end + 1],
            "n_targets": torch.tensor([1]),
        }
    )


def counted_prefixes(batch):
    """Every counted target of a batch as ``(row, position, single-row batch)``."""
    for row in range(len(batch)):
        length, n = int(batch["item_length"][row]), int(batch["n_targets"][row])
        items = torch.cat([batch["item_id_list"][row, :length], batch["item_id"][row : row + 1]])
        for end in range(length - n + 1, length + 1):
            yield row, end - 1, single(row + 1, items, end)


def slow_log_prob(model, one, sid):
    """Log-probability of a SID from one pass per code over one unpadded history."""
    user = model.user_to_token
    reading = model._read(one, False)
    total = 0.0
    for level in range(3):
        codes = torch.tensor(sid)[None, None].clone()
        codes[..., level:] = 0  # what comes later must not matter
        logits = user.logits(reading, codes)[level][0, 0]
        total += float(logits.log_softmax(0)[sid[level]])
    return total


def part_losses(model, batch):
    """The three losses of a batch, without their weights."""
    losses, add = {}, model.meter.add
    model.meter.add = lambda topic, name, total, weight=1.0: losses.__setitem__(name, total)
    model.calculate_loss(batch)
    model.meter.add = add
    return losses


def gradients(model):
    """Whether any gradient has reached each part of the model."""
    parts = {
        "items": model.items,
        "alignment": model.alignment,
        "i2t": model.item_to_token,
        "u2t": model.user_to_token,
        "history": model.history_map,
    }
    return {
        name: any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
        for name, part in parts.items()
    }


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


# Selection


@EVERY
@torch.no_grad()
def test_the_selected_sid_is_the_cheapest_for_the_user_at_every_position(options):
    model = evolving(small_pit(**options))
    batch = batch_for(model, seed=5)
    targets = model.sequence(batch)[:, 1:] if model.whole else batch["item_id"].unsqueeze(1)
    counted = model.counted(batch) if model.whole else torch.ones_like(targets).bool()
    choice = model._choose(model._read(batch, model.whole), targets, counted)
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
    choice = model._choose(model._read(batch, True), targets, counted)
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
    reading = model._read(batch, True)
    expected = model._choose(reading, targets, counted).codes
    model.train()
    state = torch.get_rng_state()
    assert torch.equal(model._choose(reading, targets, counted).codes, expected)
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


def train_epoch(model, seeds, lr=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for seed in seeds:
        optimizer.zero_grad()
        model.calculate_loss(whole_batch(n_rows=16, seed=seed)).backward()
        optimizer.step()
    figures = model.end_epoch()
    model.eval()
    return figures


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


# Inference


@EVERY
@torch.no_grad()
def test_every_decoded_sid_is_in_the_index(options):
    model = evolving(small_pit(**options))
    batch = batch_for(model)
    beams = model.search(batch, 20)
    codes, items, _ = model.index.edges()
    legal = set(map(tuple, codes.tolist()))
    alive = beams.nodes >= 0
    assert set(map(tuple, beams.codes[alive].tolist())) <= legal
    everything = model.search(batch, len(legal) + 5)
    assert {tuple(sid) for sid in everything.codes[0].tolist()} == legal
    assert set(items.tolist()) == set(range(1, N_ITEMS + 1))


@EVERY
@pytest.mark.parametrize("merge", ["logsumexp", "max"])
@torch.no_grad()
def test_a_beam_as_wide_as_the_index_ranks_like_exhaustive_scoring(options, merge):
    model = evolving(small_pit(**options, merge=merge, index_item_prior="popularity"))
    train = batch_for(model, seed=2)
    model.calculate_loss(train)
    model.end_epoch()
    batch = batch_for(model)
    exact = model.exact(batch)
    found = model.generate(batch, 30, beam_size=200)
    values, order = best(exact, torch.arange(31).expand(4, -1), 30)
    assert torch.equal(found.items, order)
    assert torch.allclose(found.scores, values, atol=1e-4)
    own = exact[torch.arange(4), batch["item_id"]]
    assert torch.allclose(model.predict(batch), own, atol=1e-4)
    codes, items, weights = model.index.edges()
    prior = model.popularity + 1
    for item in (3, 17):  # by hand
        parts = []
        for sid in {tuple(c) for c in codes[items == item].tolist()}:
            same = (codes == torch.tensor(sid)).all(1)
            mass = weights[same] * prior[items[same]]
            share = float(mass[items[same] == item].sum() / mass.sum())
            row = rows_of(batch, torch.tensor([1]))
            parts.append(slow_log_prob(model, row, list(sid)) + math.log(share))
        total = max(parts) if merge == "max" else math.log(sum(map(math.exp, parts)))
        assert float(exact[1, item]) == pytest.approx(total, abs=1e-4)


@torch.no_grad()
def test_any_k_is_filled_and_the_dense_scores_rank_alike():
    popularity = torch.tensor([0, *range(N_ITEMS, 0, -1)])
    model = evolving(small_pit(popularity=popularity, beam_size=10))
    batch = whole_batch()
    found = model.rank(model.search(batch, 10), N_ITEMS, batch)
    dense = model.full_sort_predict(batch)
    assert dense.shape == (4, N_ITEMS + 1) and bool((dense[:, 0] == float("-inf")).all())
    assert torch.equal(dense.argsort(1, descending=True)[:, :N_ITEMS], found.items)
    generated = found.scores > TAIL_SCORE / 2
    for row in range(4):
        rest = found.items[row][~generated[row]].tolist()
        assert rest == sorted(rest) and len(set(found.items[row].tolist())) == N_ITEMS


@torch.no_grad()
def test_excluded_items_do_not_come_back_through_the_tail():
    model = evolving(small_pit(exclude_history=True))
    batch = whole_batch()
    dense, found = model.full_sort_predict(batch), model.rank(model.search(batch), 20, batch)
    for row in range(4):
        history = set(batch["item_id_list"][row].tolist())
        assert not history & set(found.items[row].tolist())
        assert bool((dense[row, list(history)] == float("-inf")).all())
    best_20 = dense.sort(1, descending=True)
    assert torch.equal(best_20.indices[:, :20], found.items)


@torch.no_grad()
def test_cached_steps_equal_whole_passes_for_many_targets_and_candidates():
    model = small_pit()
    batch = whole_batch()
    reading = model._read(batch, True)
    generator = torch.Generator().manual_seed(1)
    codes = torch.stack([torch.randint(n, (4, 6, 5), generator=generator) for n in (4, 5, 3)], 3)
    first = torch.arange(6).repeat_interleave(5).expand(4, -1)
    losses = path_losses(model.user_to_token.start(reading), codes.flatten(1, 2), first)
    losses = losses.view(4, 6, 5)
    for n in range(5):
        logits = model.user_to_token.logits(reading, codes[:, :, n])
        logp = sum(
            scores.log_softmax(2).gather(2, codes[:, :, n, level, None]).squeeze(2)
            for level, scores in enumerate(logits)
        )
        assert torch.allclose(losses[:, :, n], -logp / 3, atol=1e-5)


@torch.no_grad()
def test_weights_and_index_travel_as_one():
    model = evolving(small_pit())
    train_epoch_state = model.meter
    with torch.enable_grad():
        train_epoch(model, range(2))
    assert train_epoch_state is model.meter
    other = small_pit(seed=5)
    other.load_state_dict(model.state_dict())
    batch = whole_batch()
    for a, b in zip(model.generate(batch, 10), other.generate(batch, 10)):
        assert torch.equal(a, b)
    assert other.trie.n_nodes == model.trie.n_nodes
    with pytest.raises(ConfigError, match="other SIDs"):
        small_pit(table=random_table(N_ITEMS, (4, 5, 3), 1)).load_state_dict(model.state_dict())


@EVERY
def test_bfloat16_autocast_trains_and_ranks_like_float32(options):
    model = evolving(small_pit(**options))
    batch = batch_for(model, seed=1)
    loss = model.calculate_loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.calculate_loss(batch)
        half.backward()
        found = model.generate(batch, 10, beam_size=200)
    assert abs(half.item() - loss.item()) < 0.1 * loss.item()
    exact = model.generate(batch, 10, beam_size=200)
    assert torch.allclose(found.scores, exact.scores, atol=0.5)


def toy_rows(n_users=50, length=5, n_items=40):
    """Each user walks through the catalogue by a step of their first item's own."""
    start = torch.arange(n_users) % n_items
    step = 1 + (start * 7) % 5
    walk = (start.unsqueeze(1) + step.unsqueeze(1) * torch.arange(length + 1)) % n_items + 1
    return Interaction(
        {
            "user_id": torch.arange(1, n_users + 1),
            "item_id_list": walk[:, :length],
            "item_length": torch.full((n_users,), length),
            "item_id": walk[:, length],
            "n_targets": torch.full((n_users,), length),
        }
    )


def overfitted():
    table = random_table(40, (8, 8, 8))
    model = small_pit(
        table=table,
        content=torch.randn(41, 12, generator=torch.Generator().manual_seed(3)),
        hidden_size=32,
        initializer_range=0.05,
        beam_size=30,
        select="item",
        index_item_prior="popularity",
    )
    batch = toy_rows()
    for phase in (1, 2):
        if phase == 2:
            evolving(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step in range(90 if phase == 1 else 40):
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()
            if step % 10 == 9:
                model.end_epoch()
    return model, batch


@pytest.fixture(scope="module")
def toy():
    return overfitted()


@torch.no_grad()
def test_fifty_users_are_learned_by_heart(toy):
    model, batch = toy
    items = model.generate(batch, 5).items
    assert float((items == batch["item_id"].unsqueeze(1)).any(1).float().mean()) > 0.97


@torch.no_grad()
def test_a_new_item_like_a_popular_one_is_retrieved_without_training(toy):
    model, batch = toy
    popular = int(batch["item_id"].bincount().argmax())
    raw = model.items.content[popular] * model.items.spread + model.items.mean
    trained = [parameter.detach().clone() for parameter in model.user_to_token.parameters()]
    (new,) = model.add_items(raw.unsqueeze(0)).tolist()
    assert new == 41 and model.n_items == 42
    takers = (batch["item_id"] == popular).nonzero().flatten()
    found = model.generate(rows_of(batch, takers), 10).items
    assert bool((found == new).any(1).all()) and bool((found == popular).any(1).all())
    dense = model.full_sort_predict(rows_of(batch, takers))
    assert dense.shape[1] == 42 and bool((dense[:, new] > TAIL_SCORE).all())
    for before, after in zip(trained, model.user_to_token.parameters()):
        assert torch.equal(before, after)


# Configuration


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"architecture": "decoder_only"}, "architecture: 'decoder_only'.*lazy_decoder"),
        ({**ENCODER, "train_sample": "sequence"}, "train_sample: sequence needs"),
        ({"history_input": "text"}, "history_input: 'text'"),
        ({"select": "least"}, "select: 'least' is not one of min"),
        ({"merge": "mean"}, "merge: 'mean'"),
        ({"n_candidates": 0}, "n_candidates: 0 must be an integer of at least 1"),
        ({"n_candidates": 61}, "n_candidates: 61 SIDs do not exist"),
        ({"index_size": 5}, "index_size: 5 SIDs per item can never be reached"),
        ({"index_decay": 1.5}, r"index_decay: 1.5 must be a number in \[0, 1\]"),
        ({"index_prior_weight": 0}, "index_prior_weight: 0 must be a number above 0"),
        ({"index_threshold": 1.0}, r"index_threshold: 1.0 must be a number in \[0, 1\)"),
        ({"lambda_csa": -1}, "lambda_csa: -1"),
        ({"freeze_i2t": "no"}, "freeze_i2t: 'no' must be True or False"),
        ({"ablate": "u2t"}, "ablate: 'u2t' must be empty, one of csa, i2t, coevo, index"),
        ({"ablate": ["coevo", "i2t"]}, "ablate: coevo leaves no candidates"),
        ({"warmup_epochs": 0}, "warmup_epochs: 0 must be an integer of at least 1"),
        ({"head_size": 7}, "head_size: 7 must be even"),
        ({"csa_negatives": 0}, "csa_negatives: 0"),
        ({"content": torch.zeros(4, 8)}, "item content has 4 rows for 31 items"),
    ],
)
def test_values_that_make_no_sense_are_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        small_pit(**options)


def test_what_is_left_open_follows_from_other_keys():
    config = {**_defaults(), **SMALL_PIT, "ablate": "coevo"}
    pit_module.PIT.prepare_config(config)
    assert (config["n_candidates"], config["index_size"]) == (1, 1)
    assert (config["warmup_epochs"], config["warmup_stopping_step"]) == (3, 10)
    assert config["train_sample"] == "sequence"


def _defaults():
    from recbole_gr.settings import properties_dir, read_yaml

    return read_yaml(properties_dir() / "model" / "PIT.yaml")
