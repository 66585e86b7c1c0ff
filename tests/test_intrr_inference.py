"""IntRR: beam search, exact scores and brute force agree."""

import pytest
import torch
from models import random_batch, random_table, rows_of, small_intrr
from test_intrr import slow_walk

from recbole_gr.generation.beam_search import best
from recbole_gr.generation.exact import exact_scores
from recbole_gr.sid.table import SIDTable

RENORMALISED = pytest.mark.parametrize("renormalise", [True, False])


def slow_item_scores(model, batch, row):
    """Log-probability of every item for one user, one code at a time, by sets of prefixes."""
    user = model.user_state(rows_of(batch, torch.tensor([row])))[0]
    scores = [float("-inf")]
    sids = [tuple(sid) for sid in model.codes[1:].tolist()]
    for sid in sids:
        logits, score = slow_walk(model.ran, user, torch.tensor(sid))[1], 0.0
        for level, code in enumerate(sid):
            allowed = sorted({s[level] for s in sids if s[:level] == sid[:level]})
            if not model.renormalise:
                allowed = list(range(model.sizes[level]))
            score += float(logits[level][allowed].log_softmax(0)[allowed.index(code)])
        scores.append(score)
    return torch.tensor(scores)


@RENORMALISED
@torch.no_grad()
def test_exact_scores_equal_brute_force_and_those_of_the_beam_steps(renormalise):
    model = small_intrr(renormalise=renormalise)
    batch = random_batch(5, 6, 30)
    exact = model.exact(batch)
    for row in range(5):
        assert torch.allclose(exact[row], slow_item_scores(model, batch, row), atol=1e-4)
    by_step = exact_scores(model.start(batch), model.trie, 5, renormalise)
    assert torch.allclose(exact, by_step, atol=1e-4)


@torch.no_grad()
def test_probabilities_sum_to_one_over_the_catalogue():
    huge = {"codebook_std": 3.0}  # of the range of the logits
    model = small_intrr(random_table(200, (8, 8, 8)), renormalise=True, **huge)
    exact = model.exact(random_batch(40, 6, 200))
    assert torch.allclose(exact.exp().sum(1), torch.ones(40), atol=1e-4)
    assert (exact[:, 0] == float("-inf")).all() and exact[:, 1:].isfinite().all()


@RENORMALISED
@pytest.mark.parametrize("exclude_history", [False, True])
@torch.no_grad()
def test_a_full_beam_returns_the_exact_ranking(renormalise, exclude_history):
    options = {"renormalise": renormalise, "exclude_history": exclude_history}
    beam = small_intrr(**options)
    exact = small_intrr(decoding="exact", **options)
    batch = random_batch(5, 6, 30)
    scores = exact.full_sort_predict(batch)
    values, order = best(scores, torch.arange(31).expand(5, -1), 10)
    for model in (beam, exact):
        found = model.generate(batch, 10, beam_size=60)
        assert torch.equal(found.items, order)
        assert torch.allclose(found.scores, values, atol=1e-4)
    wide, narrow = beam.search(batch, 60), exact.search(batch, 12)
    assert torch.equal(wide.nodes[:, :12], narrow.nodes)
    assert torch.equal(wide.codes[:, :12], narrow.codes)
    if exclude_history:
        returned = beam.generate(batch, 10).items
        assert not (returned.unsqueeze(2) == batch["item_id_list"].unsqueeze(1)).any()


@torch.no_grad()
def test_beams_carry_the_exact_scores_of_their_items():
    model = small_intrr(random_table(200, (8, 8, 8)))
    batch = random_batch(6, 6, 200)
    found, exact = model.generate(batch, 10), model.exact(batch)
    assert torch.allclose(found.scores, exact.gather(1, found.items), atol=1e-4)
    together = model.generate(batch, 10)
    for row in range(6):
        alone = model.generate(rows_of(batch, torch.tensor([row])), 10)
        assert torch.equal(alone.items[0], together.items[row])


@torch.no_grad()
def test_fewer_first_codes_than_beams_still_return_items_alone():
    codes = torch.tensor([[a, b, c] for a in (0, 3) for b in range(3) for c in range(4)])
    model = small_intrr(SIDTable.from_item_codes(codes, (40, 3, 4)), beam_size=10)
    found = model.generate(random_batch(4, 6, 24), 10)
    assert found.scores.isfinite().all() and (found.items > 0).all()
    assert all(len(set(row)) == 10 for row in found.items.tolist())


@torch.no_grad()
def test_equal_scores_are_ranked_by_item_id():
    codes = torch.tensor([[a, b] for a in range(4) for b in range(5)])
    for decoding in ("beam", "exact"):
        model = small_intrr(SIDTable.from_item_codes(codes, (4, 5)), decoding=decoding)
        for parameter in model.ran.parameters():
            parameter.zero_()
        found = model.generate(random_batch(3, 6, 20), 10)
        assert found.items.tolist() == [list(range(1, 11))] * 3


@torch.no_grad()
def test_items_that_share_a_sid_share_its_probability():
    codes = torch.tensor([[a, b] for a in range(3) for b in range(3)] * 2)
    model = small_intrr(SIDTable.from_item_codes(codes, (3, 3)))
    exact = model.exact(random_batch(3, 6, 18))
    assert torch.allclose(exact.exp().sum(1), torch.ones(3), atol=1e-5)
    assert torch.equal(exact[:, 1:10], exact[:, 10:19])


@torch.no_grad()
def test_prediction_of_one_item_is_its_exact_score():
    model, batch = small_intrr(), random_batch(5, 6, 30)
    expected = model.exact(batch)[torch.arange(5), batch["item_id"]]
    assert torch.allclose(model.predict(batch), expected)


@torch.no_grad()
def test_dense_scores_hold_the_generated_items_or_with_exact_all():
    batch = random_batch(5, 6, 30)
    dense = small_intrr().full_sort_predict(batch)
    assert ((dense > float("-inf")).sum(1) == 10).all()
    model = small_intrr(decoding="exact")
    assert torch.equal(model.full_sort_predict(batch), model.exact(batch))


@pytest.mark.parametrize("decoding", ["beam", "exact"])
def test_bfloat16_autocast_trains_and_ranks_like_float32(decoding):
    model, batch = small_intrr(decoding=decoding, lambda_aln=0.1), random_batch(8, 6, 30)
    loss = model.calculate_loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.calculate_loss(batch)
        half.backward()
        found = model.generate(batch, 10, beam_size=60)
    assert found.scores.dtype == torch.float32
    assert abs(half.item() - loss.item()) < 0.05 * loss.item()
    exact = model.exact(batch).gather(1, found.items)
    assert (found.scores - exact).abs().median() < 0.5


def count_assignments(model, monkeypatch):
    calls, assign = [], model.assign
    monkeypatch.setattr(model, "assign", lambda items: calls.append(len(items)) or assign(items))
    return calls


@torch.no_grad()
def test_item_tokens_are_computed_once_until_weights_change(monkeypatch):
    model, batch = small_intrr(), random_batch(5, 6, 30)
    calls = count_assignments(model, monkeypatch)
    first = model.exact(batch)
    model.generate(batch, 10)
    assert torch.equal(model.exact(batch), first) and calls == [31]
    for weight in (model.uid_embedding.weight, model.uid_projection.bias, *model.ran.parameters()):
        weight.mul_(1.5)
        before = len(calls)
        model.exact(batch)
        assert len(calls) == before + 1
    model.load_state_dict(small_intrr(seed=0).state_dict())
    assert torch.equal(model.exact(batch), first)


@pytest.mark.parametrize("fused", [False, True])
def test_kept_tokens_do_not_survive_an_optimiser_step(fused):
    model, batch = small_intrr(), random_batch(5, 6, 30)
    optimizer = torch.optim.Adam(model.parameters(), 0.1, fused=fused)
    before = model.exact(batch)
    model.train()
    model.calculate_loss(batch).backward()
    optimizer.step()
    model.eval()
    after = model.exact(batch)
    fresh = small_intrr(seed=1)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(after, fresh.exact(batch)) and not torch.equal(after, before)


def test_kept_tokens_carry_no_gradient_and_calls_with_gradient_get_their_own():
    model, batch = small_intrr(), random_batch(3, 6, 30)
    model.exact(batch)
    assert not model._served[1].tokens.requires_grad
    model.user_state(batch).sum().backward()
    assert model.uid_embedding.weight.grad.abs().sum() > 0
