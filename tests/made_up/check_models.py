"""On a device that is no CPU: the same numbers, and no step that the host waits for.

The device is :mod:`made_up_device`, which says what it can show and what it cannot.
"""

import contextlib
import copy

import made_up_device
import pytest
import torch
from made_up_device import Waits, never_waiting, waits
from models import random_batch, small_intrr, small_tiger
from pit_models import ENCODER, LAZY, SID_HISTORY, batch_for, evolving, small_pit

from recbole_gr.generation.ranking import rank_items
from recbole_gr.sid.collision import resolve
from recbole_gr.sid.table import SIDTable

pytestmark = made_up_device.needed
N_ITEMS = 30
DEPTH = {"n_layers": 1}


@pytest.fixture
def there():
    """The device."""
    with made_up_device.device() as device:
        yield device


def shared_table(policy="share"):
    """SIDs of which two items have the same, and what a collision policy makes of them."""
    number = torch.arange(N_ITEMS) // 2
    codes, sizes = resolve(
        torch.stack([number // 5, number % 5], 1), (3, 20), policy,
        last_level_distances=lambda rows: torch.arange(20.0).repeat(len(rows), 1),
    )  # fmt: skip
    return SIDTable.from_item_codes(codes, sizes)


# What the device itself does


@pytest.mark.parametrize("wait", [
    lambda x: float(x[0]), lambda x: bool(x[0]), lambda x: x.tolist(), lambda x: x.cpu(),
    lambda x: x.nonzero(), lambda x: x.unique(), lambda x: x.long().bincount(), lambda x: x[x > 0],
    lambda x: x.long().repeat_interleave(x.long()), lambda x: x.copy_(torch.ones(3)),
    lambda x: torch.ones(3).to(x.device), lambda x: torch.tensor([1.0], device=x.device),
    lambda x: torch.zeros(3).copy_(x), lambda x: x.clone().__setitem__(x > 0, 0.0),
    lambda x: x[torch.tensor([1])],
])  # fmt: skip
def test_what_a_gpu_is_waited_for_is_noticed(there, wait):
    x = torch.ones(3, device=there)
    with pytest.raises(Waits), never_waiting():
        wait(x)


@pytest.mark.parametrize("mix", [
    lambda x: x + torch.ones(3), lambda x: torch.cat([x, x.cpu()]), lambda x: x.cpu()[x.long()],
    lambda x: x.clone().index_put_([x.long()], torch.ones(3)),
])  # fmt: skip
def test_tensors_of_two_devices_in_one_operation_are_an_error(there, mix):
    with pytest.raises(RuntimeError, match="also a tensor on the CPU"):
        mix(torch.ones(3, device=there))


def test_what_a_gpu_does_on_its_own_is_let_pass(there):
    x = torch.arange(3.0, device=there)
    with never_waiting():
        y = torch.ones(3).to(there, non_blocking=True)
        z = torch.where(x > 1, x, 0.0).masked_fill(x > 1, 5.0) + y.sum() * 2
        repeated = x.repeat_interleave(x.long(), output_size=3)
    assert z.tolist() == [6, 6, 11] and repeated.tolist() == [1, 2, 2]


# Models


def twins(model, there):
    """The model and its copy on the device."""
    return model, copy.deepcopy(model).to(there)


def train(model, batch, amp=False):
    """Two optimiser steps, the first of two batches, gradients clipped; returns the losses."""
    losses, optimizer = [], torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    model.train()
    torch.manual_seed(3)
    for n_batches in (2, 1):
        for _ in range(n_batches):
            with torch.autocast(batch["item_id"].device.type, torch.bfloat16, enabled=amp):
                losses.append(model.calculate_loss(batch))
            losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return torch.stack(losses).detach()


def assert_steps_alike(model, batch, there, amp=False):
    """Losses and weights are those of the CPU, and no step waits for the device."""
    model, twin = twins(model, there)
    batch_there = batch.to(there)
    losses = train(model, batch, amp)
    with never_waiting():
        found = train(twin, batch_there, amp)
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if amp else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.cpu(), losses, **tolerance)
    if not amp:
        for name, value in model.state_dict().items():
            other = twin.state_dict()[name].cpu()
            torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-4, msg=name)
    return model, twin


def assert_answers_alike(model, batch, there):
    """The search, its ranking and all scores are those of the CPU, without a wait."""
    model.eval()
    model, twin = twins(model, there)
    batch_there = batch.to(there)
    with torch.no_grad():
        wanted = model.generate(batch, 5), model.exact(batch), model.full_sort_predict(batch)
        wanted = (*wanted, model.predict(batch))
        with never_waiting():
            found = twin.generate(batch_there, 5), twin.exact(batch_there)
            found = (*found, twin.full_sort_predict(batch_there), twin.predict(batch_there))
    assert torch.equal(found[0].items.cpu(), wanted[0].items)
    for ours, theirs in zip((found[0].scores, *found[1:]), (wanted[0].scores, *wanted[1:])):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


def options(*settings):
    return pytest.mark.parametrize("settings", settings, ids=lambda given: str(given) or "default")


TIGERS = options(
    {}, {"backbone": "hstu"}, {"backbone": "hstu_original"}, {"architecture": "encoder_decoder"},
    {"train_sample": "prefix"}, {"position": "relative_bias"}, {"user_tokens": 7},
    {"tie_embeddings": True}, {"label_smoothing": 0.1}, {"feed_forward_depth": 2},
    {"exclude_history": True}, {"renormalise": True}, {"loss_normalisation": "trie"},
    {"loss_normalisation": "trie", "architecture": "encoder_decoder", "label_smoothing": 0.1},
    {"architecture": "encoder_decoder", "exclude_history": True, "user_tokens": 7},
)  # fmt: skip
INTRRS = options(
    {"decoding": "beam"}, {"decoding": "exact"}, {"lambda_aln": 0.1},
    {"lambda_aln": 0.1, "alignment_levels": 1, "train_sample": "prefix"},
    {"context": "soft", "lambda_aln": 0.1, "temperature": 2.0}, {"backbone": "hstu"},
    {"backbone": "hstu_original"}, {"decoding": "beam", "exclude_history": True},
    {"decoding": "exact", "exclude_history": True, "renormalise": True},
    {"decoding": "beam", "renormalise": True}, {"loss_normalisation": "trie", "lambda_aln": 0.1},
)  # fmt: skip
PITS = options(
    LAZY, ENCODER, {**LAZY, **SID_HISTORY}, {**ENCODER, **SID_HISTORY}, {"select": "item"},
    {"select": "max"}, {"select": "top1"}, {"select": "random"}, {"freeze_i2t": False},
    {"freeze_i2t": False, "select": "item"}, {"ablate": "csa"}, {"ablate": "i2t"},
    {"ablate": "index"}, {"ablate": "coevo"}, {"merge": "max", "index_item_prior": "popularity"},
    {"exclude_history": True, "renormalise": True}, {"detach_history": True},
    {"loss_normalisation": "trie", "select": "item"},
    {"loss_normalisation": "trie", "freeze_i2t": False, "select": "item", **ENCODER},
)  # fmt: skip


@TIGERS
def test_tiger_trains_and_answers_there_as_on_a_cpu(there, settings):
    model, batch = small_tiger(**settings, **DEPTH), random_batch(4, 6, N_ITEMS)
    assert_steps_alike(model, batch, there)
    assert_answers_alike(model, batch, there)


@INTRRS
def test_intrr_trains_and_answers_there_as_on_a_cpu(there, settings):
    model, batch = small_intrr(**settings, **DEPTH), random_batch(4, 6, N_ITEMS)
    assert_steps_alike(model, batch, there)
    assert_answers_alike(model, batch, there)


@options(LAZY, ENCODER, SID_HISTORY, {"ablate": "csa"}, {"ablate": "i2t"})
def test_the_warm_up_of_pit_trains_there_as_on_a_cpu(there, settings):
    model = small_pit(**settings, **DEPTH)
    assert_steps_alike(model, batch_for(model), there)


@PITS
def test_pit_evolves_and_answers_there_as_on_a_cpu(there, settings):
    model = evolving(small_pit(**settings, **DEPTH))
    batch = batch_for(model)
    model, twin = assert_steps_alike(model, batch, there)
    figures, found = model.end_epoch(), twin.end_epoch()
    for topic, values in figures.items():
        assert found[topic] == pytest.approx(values, rel=1e-3, abs=1e-4), topic
    assert_answers_alike(model, batch, there)


@pytest.mark.parametrize("policy", ["share", "suffix", ["sinkhorn", "suffix"]], ids=str)
@pytest.mark.parametrize("make", [
    small_tiger, small_intrr, small_pit,
    lambda table: small_intrr(table, decoding="exact", exclude_history=True),
    lambda table: small_tiger(table, exclude_history=True),
    lambda table: evolving(small_pit(table)),
    lambda table: evolving(small_pit(table, exclude_history=True, merge="max")),
])  # fmt: skip
def test_every_collision_policy_is_answered_there(there, make, policy):
    model = make(shared_table(policy))
    batch = batch_for(model) if hasattr(model, "whole") else random_batch(4, 6, N_ITEMS)
    assert_answers_alike(model, batch, there)


@pytest.mark.parametrize("make", [
    small_tiger, small_intrr, small_pit,
    lambda **o: small_tiger(architecture="encoder_decoder", **o),
    lambda **o: small_tiger(backbone="hstu", **o),
    lambda **o: small_tiger(backbone="hstu_original", **o),
    lambda **o: small_intrr(lambda_aln=0.1, context="soft", **o),
    lambda **o: small_pit(**ENCODER, **SID_HISTORY, **o), lambda **o: evolving(small_pit(**o)),
    lambda **o: evolving(small_pit(freeze_i2t=False, select="item", **o)),
])  # fmt: skip
def test_mixed_precision_and_dropout_do_not_wait_either(there, make):
    model = make(dropout=0.1).to(there)
    batch = batch_for(model) if hasattr(model, "whole") else random_batch(4, 6, N_ITEMS)
    batch = batch.to(there)
    with never_waiting():
        assert_finite = train(model, batch, amp=True).isfinite().all()
        with torch.autocast(there.type, torch.bfloat16):
            model.generate(batch, 5)
    assert assert_finite


@pytest.mark.parametrize("make", [small_tiger, small_intrr, lambda: evolving(small_pit())])
def test_items_excluded_by_the_question_are_left_out_there(there, make):
    model, batch = make(), random_batch(4, 6, N_ITEMS)
    batch["excluded_items"] = torch.arange(1, 21).repeat(4, 1)
    assert_answers_alike(model, batch, there)


def test_crowded_sids_are_looked_at_once_a_batch(there):
    """Here a bound on the items of a row would be far too wide, so the host waits, once."""
    codes = torch.zeros(100, 2, dtype=torch.long)
    codes[50:, 1] = torch.arange(1, 51)
    model = small_tiger(SIDTable.from_item_codes(codes, (1, 60))).to(there)
    batch = random_batch(4, 6, 100).to(there)
    with never_waiting():
        beams = model.search(batch, 2)
    with waits() as noted:
        rank_items(model.trie, beams, 5)
    assert len(noted) == 1


# Training and evaluation


@contextlib.contextmanager
def moved(parts, there, **settings):
    """``parts`` with the model, and a trainer for it, on the device."""
    config, trainer, *loaders = parts(**settings)
    config["device"] = there
    yield type(trainer)(config, trainer.model.to(there)), *loaders
    config["device"] = torch.device("cpu")


EPOCHS = options(
    {}, {"accumulation_steps": 2}, {"clip_grad_norm": {"max_norm": 1.0}}, {"enable_amp": True},
    {"enable_scaler": True, "enable_amp": True, "amp_dtype": "float16",
     "clip_grad_norm": {"max_norm": 1.0}},
    {"learner": "sgd"}, {"architecture": "encoder_decoder"},
    {"model": "IntRR", "uid_size": 12, "ran_hidden_size": 24}, {"model": "PIT"}, {"model": "RPG"},
    {"shared": True, "exclude_history": True},
)  # fmt: skip


@EPOCHS
def test_waits_of_an_epoch_do_not_grow_with_its_steps(there, parts, settings):
    counted = []
    for batch_size in (400, 100) if "architecture" in settings else (40, 10):
        with moved(parts, there, train_batch_size=batch_size, **settings) as (trainer, data, *_):
            with waits() as noted:
                trainer._train_epoch(data, 0)
            counted.append((len(data), noted))
    (few, of_few), (many, of_many) = counted
    assert many > 2 * few and len(of_many) == len(of_few), of_many[:5]


@EPOCHS
def test_waits_of_an_evaluation_do_not_grow_with_its_batches(there, parts, settings):
    counted = []
    for batch_size in (60, 10):
        with moved(parts, there, eval_batch_size=batch_size, **settings) as (trainer, _, data, _):
            with waits() as noted:
                result = trainer.evaluate(data, load_best_model=False)
            counted.append((len(data), noted, result))
    (few, of_few, result), (many, of_many, again) = counted
    assert many == 6 and few == 1 and len(of_many) == len(of_few), of_many[:5]
    assert again == pytest.approx(result)
