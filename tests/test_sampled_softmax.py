"""Sampled softmax: an unbiased denominator, drawn from the seed of a batch, equal to the full one
where nothing is left out."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_gr.model.sampled_softmax import SharedNegatives, sampled_softmax_loss

N_ITEMS, N, D = 12, 7, 5
COUNTS = torch.tensor([0, 9, 0, 3, 30, 1, 0, 2, 5, 8, 0, 40])


@pytest.fixture
def given():
    torch.manual_seed(0)
    states, items = torch.randn(N, D).double(), torch.randn(N_ITEMS, D).double()
    return states.requires_grad_(), items.requires_grad_(), torch.randint(1, N_ITEMS, (N,))


def sampled(states, items, targets, negatives, seed):
    drawn = negatives.draw(seed)
    return sampled_softmax_loss(
        states, items[targets], items[drawn], negatives.log_expected[drawn],
        targets.unsqueeze(1) == drawn,
    )  # fmt: skip


def full(states, items, targets):
    """Over all items but the padding."""
    return F.cross_entropy(states @ items[1:].T, targets - 1)


def test_with_all_items_as_negatives_loss_and_gradients_are_those_of_the_full_softmax(given):
    negatives, found = SharedNegatives(10**6, N_ITEMS), []
    assert sorted(negatives.draw(3).tolist()) == list(range(1, N_ITEMS))
    for loss in (sampled(*given, negatives, 3), full(*given)):
        found.append([loss.detach(), *torch.autograd.grad(loss, given[:2])])
    for own, other in zip(*found):
        assert torch.allclose(own, other, atol=1e-12)


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["uniform", "popularity"])
def test_the_loss_is_the_formula_written_out(given, counts):
    states, items, targets = (part.detach() for part in given)
    negatives = SharedNegatives(6, N_ITEMS, counts)
    drawn = negatives.draw(1)
    share = [1 / 11] * 12 if counts is None else [(int(c) + 1) / (98 + 11) for c in counts]
    expected = 0.0
    for state, target in zip(states, targets):
        own = math.exp(float(state @ items[target]))
        rest = sum(math.exp(float(state @ items[i])) / (6 * share[i]) for i in drawn if i != target)
        expected -= math.log(own / (own + rest)) / N
    assert float(sampled(states, items, targets, negatives, 1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["uniform", "popularity"])
def test_in_expectation_the_denominator_is_that_of_the_full_softmax(given, counts):
    """Of one target: e^loss is the denominator over the target's part."""
    states, items, targets = given[0].detach()[:1], given[1].detach(), given[2][:1]
    negatives = SharedNegatives(4, N_ITEMS, counts)
    found = torch.stack(
        [sampled(states, items, targets, negatives, seed).exp() for seed in range(4000)]
    )
    error = float(found.std()) / math.sqrt(len(found))
    exact = float(full(states, items, targets).exp())
    assert abs(float(found.mean()) - exact) < 4 * error < 0.2 * exact
    # Without the correction it is far off.
    negatives.log_expected.zero_()
    wrong = [sampled(states, items, targets, negatives, seed).exp() for seed in range(400)]
    assert abs(float(torch.stack(wrong).mean()) - exact) > 8 * error


def test_gradients_approach_those_of_the_full_softmax_with_the_number_of_negatives(given):
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(full(*given), given[:2])])
    off = []
    for number in (10, 1000, 100_000):
        loss = sampled(*given, SharedNegatives(number, N_ITEMS, COUNTS), 5)
        found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, given[:2])])
        off.append(float((found - exact).norm() / exact.norm()))
    assert off[0] > off[1] > off[2] < 0.02


def test_negatives_that_are_all_the_target_leave_a_loss_of_zero(given):
    states, items, targets = given[0], given[1], torch.full((N,), 4)
    loss = sampled_softmax_loss(
        states, items[targets], items[[4, 4]], torch.zeros(2), torch.ones(N, 2, dtype=torch.bool)
    )
    loss.backward()
    assert float(loss.detach()) == 0 and not states.grad.any() and not items.grad.any()


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["uniform", "popularity"])
def test_items_are_drawn_as_often_as_expected(counts):
    negatives, n = SharedNegatives(5, N_ITEMS, counts), 4000
    drawn = torch.stack([negatives.draw(seed) for seed in range(n)])
    assert torch.equal(drawn[7], negatives.draw(7))
    if counts is None:
        assert all(len(row.unique()) == 5 for row in drawn[:50])
    often = torch.bincount(drawn.flatten(), minlength=N_ITEMS) / n
    expected = negatives.log_expected.exp()
    assert often[0] == expected[0] == 0 and torch.allclose(often, expected, atol=0.06)
