"""The loss over the tree of SIDs: what it is, what it equals, and where it is taken from."""

import logging
import math

import pytest
import torch
from models import random_batch, random_table, small_intrr, small_tiger
from pit_models import ENCODER, LAZY, evolving, small_pit, whole_batch

from recbole_gr.config import Config
from recbole_gr.config.parsing import properties_dir
from recbole_gr.errors import ConfigError
from recbole_gr.sid.likelihood import code_losses, level_losses
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie

OVER_TRIE = {"loss_normalisation": "trie"}
SIZES = (4, 9, 3)


def forest(seed, n_items=20, sizes=SIZES, dense=True):
    """Distinct random SIDs and their tree, with levels that are dense and levels that are not."""
    table = random_table(n_items, sizes, seed)
    return table.codes[1:], SIDTrie.from_table(table, dense_limit=64 << 20 if dense else 0)


def slow_losses(logits, sid, sids, smoothing=0.0):
    """The losses of the codes of one SID, by sets of prefixes; an unknown SID is one of them."""
    sids = {*map(tuple, sids.tolist()), tuple(sid)}
    losses = []
    for level, code in enumerate(sid):
        allowed = sorted({other[level] for other in sids if other[:level] == tuple(sid[:level])})
        log_prob = logits[level].double()[allowed].log_softmax(0)
        own = -log_prob[allowed.index(code)]
        losses.append(float((1 - smoothing) * own - smoothing * log_prob.mean()))
    return losses


def random_logits(shape, sizes=SIZES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(*shape, size, generator=generator) for size in sizes]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("n_items", [1, 5, 20, 80])
def test_each_code_is_normalised_over_those_that_may_follow(n_items, smoothing, dense):
    sids, trie = forest(n_items, n_items, dense=dense)
    targets = sids[torch.randint(n_items, (7, 3))]
    logits = random_logits((7, 3))
    losses = torch.stack(code_losses(logits, targets, trie, smoothing), -1)
    for i in range(7):
        for j in range(3):
            own = [level[i, j] for level in logits]
            slow = slow_losses(own, targets[i, j].tolist(), sids, smoothing)
            assert losses[i, j].tolist() == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize("dense", [True, False])
def test_a_sid_that_the_tree_lacks_counts_as_if_it_had_been_added_alone(dense):
    sids, trie = forest(3, 12, dense=dense)
    every = torch.cartesian_prod(*map(torch.arange, SIZES))
    logits = random_logits((len(every),))
    losses = torch.stack(code_losses(logits, every, trie), -1)
    for row, sid in enumerate(every.tolist()):
        slow = slow_losses([level[row] for level in logits], sid, sids)
        assert losses[row].tolist() == pytest.approx(slow, abs=1e-5)


def test_over_a_full_tree_it_is_the_loss_over_the_codebook():
    sids, trie = forest(0, math.prod(SIZES))
    logits, counted = random_logits((50, 2)), torch.rand(50, 2) < 0.5
    targets = sids[torch.randint(len(sids), (50, 2))]
    for smoothing in (0.0, 0.1):
        ours = level_losses(logits, targets, counted, trie, smoothing)
        plain = level_losses(logits, targets, counted, None, smoothing)
        assert torch.allclose(torch.stack(ours), torch.stack(plain), atol=1e-6)
        assert torch.equal(*map(torch.isfinite, (torch.stack(ours), torch.stack(plain))))


def test_only_what_counts_is_in_the_mean():
    sids, trie = forest(5)
    logits, counted = random_logits((6, 4)), torch.rand(6, 4) < 0.5
    targets = sids[torch.randint(len(sids), (6, 4))]
    targets[~counted] = 0  # padding, wherever that leads
    ours = level_losses(logits, targets, counted, trie)
    for level, loss in enumerate(ours):
        alone = [scores[counted] for scores in logits]
        assert torch.allclose(loss, code_losses(alone, targets[counted], trie)[level].mean())
    nothing = level_losses(logits, targets, torch.zeros_like(counted), trie)
    assert not any(nothing)


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_are_finite_and_stay_within_what_may_follow(dense):
    sids, trie = forest(1, 12, dense=dense)
    logits = [level.requires_grad_() for level in random_logits((len(sids),))]
    sum(loss.sum() for loss in code_losses(logits, sids, trie, 0.1)).backward()
    known = {tuple(sid[:n]) for sid in sids.tolist() for n in range(len(SIZES) + 1)}
    lonely = 0
    for row, sid in enumerate(sids.tolist()):
        for level, size in enumerate(SIZES):
            gradient = logits[level].grad[row]
            allowed = [(*sid[:level], code) in known for code in range(size)]
            assert gradient.isfinite().all() and abs(float(gradient.sum())) < 1e-6
            assert not gradient[~torch.tensor(allowed)].any()
            lonely += sum(allowed) == 1
    assert lonely  # nodes of one child were among them


def test_a_descent_outside_the_tree_has_finite_gradients():
    _, trie = forest(2, 3)
    every = torch.cartesian_prod(*map(torch.arange, SIZES))
    logits = [level.requires_grad_() for level in random_logits((len(every),))]
    sum(loss.sum() for loss in code_losses(logits, every, trie)).backward()
    assert all(level.grad.isfinite().all() for level in logits)


def with_shared_sids():
    """30 items on 18 SIDs."""
    return SIDTable.from_item_codes(
        random_table(18, (4, 5, 3)).codes[1:].repeat(2, 1)[:30], (4, 5, 3)
    )


TABLES = pytest.mark.parametrize("table", [None, with_shared_sids()], ids=["alone", "shared"])


@TABLES
@pytest.mark.parametrize("settings", [
    {"architecture": "encoder_decoder"}, {"train_sample": "prefix"}, {"train_sample": "sequence"},
    {"backbone": "hstu"}, {"tie_embeddings": True, "user_tokens": 5},
], ids=str)  # fmt: skip
def test_tigers_loss_is_that_of_the_exact_scorer(table, settings):
    assert_exact(small_tiger(table, **settings, **OVER_TRIE))


@TABLES
@pytest.mark.parametrize("settings", [{"train_sample": "prefix"}, {"context": "soft"}], ids=str)
def test_intrrs_loss_is_that_of_the_exact_scorer(table, settings):
    assert_exact(small_intrr(table, **settings, **OVER_TRIE))


@TABLES
@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("settings", [LAZY, ENCODER], ids=str)
def test_pits_loss_is_that_of_the_exact_scorer(table, settings, phase):
    """In phase 2 an item owns several SIDs: ``P(item)`` sums over them, the loss is of one."""
    model = small_pit(table, **settings, **OVER_TRIE)
    if phase == 2:
        evolving(model)
    batch = random_batch(5, 6, 30)
    reading = model._training_reading(batch)
    exact = model.exact(batch)
    for row in range(5):
        item = int(batch["item_id"][row])
        held = model.index.codes[item, model.index.weight[item] > 0].long()
        share = model._log_share(torch.tensor([item]), held.unsqueeze(0), model.full_trie)[0]
        losses = []
        for sid in held:
            place = torch.zeros(5, reading.place.shape[1], dtype=torch.bool)
            place[row, reading.place[min(row, len(reading.place) - 1)].argmax()] = True
            if model.whole:
                place = torch.zeros_like(batch["item_id_list"], dtype=torch.bool)
                place[row, batch["item_length"][row] - 1] = True
            codes = sid.expand(*place.shape, -1)
            losses.append(model._user_loss(reading, codes)[place][0].detach())
        log_prob = (share - torch.stack(losses)).logsumexp(0)
        assert float(exact[row, item]) == pytest.approx(float(log_prob), abs=1e-5)


@torch.no_grad()
def assert_exact(model):
    """The loss of a row is ``-log P(item)`` but for the item's share in its SID."""
    assert model.renormalise
    batch = random_batch(6, 6, 30)
    exact = model.exact(batch)
    assert torch.allclose(exact.exp().sum(1), torch.ones(6), atol=1e-5)
    shares = model.trie.sharing(model.trie.item_paths()[-1][batch["item_id"], 0].long()).log()
    for row in range(6):
        one = type(batch)({name: batch[name][row : row + 1] for name in batch.columns})
        length = int(one["item_length"])
        one["item_id_list"] = one["item_id_list"][:, :length]
        wanted = -float(exact[row, int(one["item_id"])] + shares[row])
        assert float(model.calculate_loss(one)) == pytest.approx(wanted, abs=1e-5)
        assert float(model.predict(one)) == pytest.approx(
            float(exact[row, one["item_id"]]), abs=1e-5
        )


def test_a_whole_sequence_is_the_mean_of_its_prefixes():
    model, other = (small_tiger(train_sample=kind, **OVER_TRIE) for kind in ("sequence", "prefix"))
    other.load_state_dict(model.state_dict())
    batch = whole_batch(1)
    items = model.sequence(batch)[0]
    losses = []
    for target in range(1, int(batch["item_length"]) + 1):
        one = random_batch(1, target, 30)
        one["item_id_list"], one["item_id"] = items[None, :target], items[target : target + 1]
        losses.append(other.calculate_loss(one))
    assert torch.allclose(model.calculate_loss(batch), torch.stack(losses).mean(), atol=1e-5)


# Item-to-Token keeps to the SIDs that there are.


@TABLES
def test_item_to_token_proposes_sids_that_there_are_and_their_probabilities(table):
    model = small_pit(table, **OVER_TRIE)
    sids, items = model.codes[1:].unique(dim=0), torch.arange(1, 31)
    vectors = model.items(items)
    codes, log_prob = model.item_to_token.propose(vectors, len(sids), model.proposable)
    assert torch.allclose(log_prob.exp().sum(1), torch.ones(30), atol=1e-5)
    every = torch.stack([
        model.item_to_token.log_prob(vectors, sid.expand(30, -1), model.proposable) for sid in sids
    ], 1)  # fmt: skip
    assert torch.allclose(every.sort(1, descending=True).values, log_prob, atol=1e-5)
    pool, of_pool = model._propose(items)
    assert torch.equal(pool[:, 0], model.codes[1:])
    for row in range(30):
        known = {tuple(sid): float(p) for sid, p in zip(sids.tolist(), every[row])}
        for found, of_found in ((codes, log_prob), (pool, of_pool)):
            wanted = [known[tuple(sid)] for sid in found[row].tolist()]
            assert of_found[row].tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_tree_of_fewer_sids_than_candidates_leaves_places_empty():
    table = SIDTable.from_item_codes(torch.tensor([[0, 1, 2], [3, 1, 0]]).repeat(4, 1), (4, 5, 3))
    model = evolving(small_pit(table, **OVER_TRIE))
    assert (model.pool_log_prob[1:] > float("-inf")).sum(1).tolist() == [2] * 8
    batch = random_batch(3, 6, 8)
    assert model.train().calculate_loss(batch).isfinite()
    model.end_epoch()
    assert torch.allclose(model.eval().exact(batch).exp().sum(1), torch.ones(3), atol=1e-5)


def test_item_to_token_is_not_trained_against_codes_that_no_item_has():
    model = small_pit(**OVER_TRIE)
    vectors, codes = model.items(torch.arange(1, 31)), model.codes[1:]
    losses = model.item_to_token.level_losses(vectors, codes, model.proposable)
    assert (losses <= model.item_to_token.level_losses(vectors, codes) + 1e-6).all()
    shared = (codes[:, None, :2] == codes[:, :2]).all(2).sum(1) > 1
    assert not shared.all() and not losses[~shared, 2].abs().gt(1e-6).any()


# Settings


@pytest.mark.parametrize("make", [small_tiger, small_intrr, small_pit])
def test_decoding_follows_the_loss(make, caplog):
    with caplog.at_level(logging.WARNING):
        assert make(**OVER_TRIE).renormalise
        assert not make().renormalise
        assert make(renormalise=False).renormalise is False
        assert make(**OVER_TRIE, renormalise=True).renormalise
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert not make(**OVER_TRIE, renormalise=False).renormalise
    assert "renormalise: False after a loss with loss_normalisation: trie" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert make(renormalise=True).renormalise
    assert "renormalise: True after a loss with loss_normalisation: codebook" in caplog.text


def test_decoding_other_than_the_loss_is_warned_of_where_a_file_makes_it(tiny_folder, caplog):
    preset = properties_dir() / "preset" / "intrr_paper.yaml"
    for model in ("IntRR", "TIGER"):
        caplog.clear()
        given = {"data_path": str(tiny_folder), "model": model}
        Config(model, "tiny", [str(preset)], given)
        assert "renormalise: True after a loss with loss_normalisation: codebook" in caplog.text
        caplog.clear()
        Config(model, "tiny", config_dict=given)
        assert "renormalise" not in caplog.text


@pytest.mark.parametrize("make", [small_tiger, small_intrr, small_pit])
def test_an_unknown_normalisation_is_refused(make):
    with pytest.raises(
        ConfigError, match="loss_normalisation: 'tree' is not one of trie, codebook"
    ):
        make(loss_normalisation="tree")
