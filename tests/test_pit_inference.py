"""PIT's answers over an index of many SIDs per item, what it learns by heart, and bad settings."""

import math

import pytest
import torch
from models import random_table, rows_of
from pit_models import (
    ENCODER,
    EVERY,
    N_ITEMS,
    SMALL_PIT,
    batch_for,
    evolving,
    slow_log_prob,
    small_pit,
    train_epoch,
    whole_batch,
)
from recbole.data.interaction import Interaction

from recbole_gr.config.layers import class_settings
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import best
from recbole_gr.generation.ranking import TAIL_SCORE
from recbole_gr.model.pit import model as pit_module
from recbole_gr.model.pit.selection import path_losses

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
    prior = model.item_prior
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
    with torch.enable_grad():
        train_epoch(model, range(2))
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


@pytest.mark.slow
@torch.no_grad()
def test_fifty_users_are_learned_by_heart(toy):
    model, batch = toy
    items = model.generate(batch, 5).items
    assert float((items == batch["item_id"].unsqueeze(1)).any(1).float().mean()) > 0.97


@pytest.mark.slow
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


@pytest.mark.parametrize("options", [{}, {"ablate": ["i2t", "csa"]}, {"freeze_i2t": False}])
@torch.no_grad()
def test_a_model_saved_with_added_items_is_loaded_with_them(options):
    model, batch = evolving(small_pit(**options)), batch_for(small_pit())
    model.add_items(torch.randn(3, 8, generator=torch.Generator().manual_seed(5)))
    other = small_pit(seed=1, content=torch.randn(31, 8), **options)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    other.load_state_dict(model.state_dict())
    assert other.n_items == 34
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert all(id(p) in held for p in other.parameters())
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(model.generate(batch, 33), other.generate(batch, 33)):
        assert torch.equal(a, b)


# Configuration


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"architecture": "decoder_only"}, "architecture: 'decoder_only'.*lazy_decoder"),
        ({**ENCODER, "train_sample": "sequence"}, "train_sample: sequence needs"),
        ({"history_input": "text"}, "history_input: 'text'"),
        ({"evolve_accept": "some"}, "evolve_accept: 'some' is not one of halves, all"),
        ({"select": "least"}, "select: 'least' is not one of item, min"),
        ({"merge": "mean"}, "merge: 'mean'"),
        ({"n_candidates": 0}, "n_candidates: 0 must be an integer of at least 1"),
        ({"n_candidates": 61}, "n_candidates: 61 SIDs do not exist"),
        ({"index_size": 5}, "index_size: 5 SIDs per item can never be reached"),
        ({"index_decay": 1.5}, r"index_decay: 1.5 must be a number in \[0, 1\]"),
        ({"index_prior_weight": 0}, "index_prior_weight: 0 must be a number above 0"),
        ({"index_threshold": 1.0}, r"index_threshold: 1.0 must be a number in \[0, 1\)"),
        ({"lambda_csa": -1}, "lambda_csa: -1"),
        ({"freeze_i2t": "never"}, "freeze_i2t: 'never' must be True or False"),
        ({"ablate": "u2t"}, "ablate: 'u2t' must be a list, each one of csa, i2t, coevo, index"),
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
    config = class_settings(pit_module.PIT, "model", {**SMALL_PIT, "ablate": "coevo"})
    pit_module.PIT.prepare_config(config)
    assert (config["n_candidates"], config["index_size"]) == (1, 1)
    assert (config["warmup_epochs"], config["warmup_stopping_step"]) == (1, 10)
    assert config["train_sample"] == "sequence"


@pytest.mark.parametrize(
    "options, accept",
    [
        ({"evolve": "items"}, "halves"),
        ({"evolve": "items", "evolve_accept": "all"}, "all"),
        ({"evolve": "items", "ablate": "coevo", "evolve_accept": "all"}, None),
        ({"evolve": "pairs"}, None),
    ],
)
def test_who_accepts_is_a_key_of_items_that_move(options, accept):
    config = class_settings(pit_module.PIT, "model", {**SMALL_PIT, **options})
    pit_module.PIT.prepare_config(config)
    assert config["evolve_accept"] == accept
