"""The parts of the transformers against their definitions, written out slowly."""

import math

import pytest
import torch
from models import random_batch, small_intrr, small_tiger
from pit_models import small_pit
from torch.nn import functional as F

from recbole_gr.model.attention import _plain_attention
from recbole_gr.model.dropout import Dropout, random_bytes
from recbole_gr.model.layers import logits_of
from recbole_gr.model.norm import RMSNorm
from recbole_gr.model.position import RelativePositionBias, Rotary, rotate

RATES = [0.1, 0.25, 0.5, 0.9]


def dropped(rate, x, seed=0):
    torch.manual_seed(seed)
    return Dropout(rate).train()(x)


@pytest.mark.parametrize("rate", RATES)
def test_dropout_drops_its_rate_to_a_256th_and_keeps_the_expectation(rate):
    n = 400_000
    y = dropped(rate, torch.ones(n))
    exact = round(rate * 256) / 256
    assert abs(exact - rate) <= 1 / 512
    share = float((y == 0).float().mean())
    assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / n)
    # The scale belongs to the rounded rate: kept values times their probability give 1 exactly.
    assert torch.allclose(y[y > 0] * (1 - exact), torch.ones(1))


def test_every_value_of_the_random_bytes_is_equally_likely():
    counts = torch.bincount(random_bytes((2**20,)).long(), minlength=256).float()
    expected = 2**20 / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 255 - 5 * math.sqrt(2 * 255) < chi_square < 255 + 5 * math.sqrt(2 * 255)
    # Each of the eight bytes of a word by itself: the sign bit is random too.
    words = random_bytes((2**17, 8)).float()
    assert ((words.mean(0) - 127.5).abs() < 5 * 74 / 2**8.5).all()


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 11)])
def test_dropout_takes_any_shape(shape):
    y = dropped(0.5, torch.ones(shape))
    assert y.shape == shape and set(y.unique().tolist()) <= {0.0, 2.0}


def test_the_gradient_of_dropout_is_its_mask():
    x = torch.randn(50, 20, requires_grad=True)
    y = dropped(0.3, x)
    weight = torch.randn(50, 20)
    (y * weight).sum().backward()
    mask = y.detach() / x.detach()
    assert torch.allclose(x.grad, weight * mask, atol=1e-6)
    assert ((x.grad == 0) == (y == 0)).all()


def test_dropout_follows_the_seed_and_differs_between_calls():
    x = torch.ones(1000)
    assert torch.equal(dropped(0.5, x, seed=1), dropped(0.5, x, seed=1))
    assert not torch.equal(dropped(0.5, x, seed=1), dropped(0.5, x, seed=2))
    layer = Dropout(0.5).train()
    assert not torch.equal(layer(x), layer(x))


def test_dropout_does_nothing_in_evaluation_and_at_rate_zero():
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0).train()(x) is x


def test_dropout_leaves_its_input_alone():
    x = torch.ones(100)
    dropped(0.5, x)
    assert (x == 1).all()


def heads(*shape):
    return tuple(torch.randn(2, 3, *shape, 8) for _ in range(3))


@pytest.mark.parametrize("causal, biased", [(False, False), (True, False), (False, True)])
def test_plain_attention_equals_the_fused_kernel(causal, biased):
    torch.manual_seed(0)
    q, k, v = heads(7)
    bias = torch.randn(1, 3, 7, 7) if biased else None
    if biased:
        bias[..., 5:] = float("-inf")
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)
    assert torch.allclose(_plain_attention(q, k, v, bias, causal), expected, atol=1e-6)


def test_plain_attention_with_a_bias_is_causal_too():
    torch.manual_seed(0)
    q, k, v = heads(6)
    bias = torch.randn(1, 3, 6, 6)
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    expected = F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias.masked_fill(future, float("-inf"))
    )
    assert torch.allclose(_plain_attention(q, k, v, bias, True), expected, atol=1e-6)


def slow_bucket(back, bidirectional, n_buckets, max_distance):
    """T5's bucket of one distance, by counting: single distances, then growing ranges."""
    offset = 0
    if bidirectional:
        n_buckets //= 2
        if back < 0:
            back, offset = -back, n_buckets
    if back < 0:
        back = 0  # a key after the query, which a causal model never looks at
    exact = n_buckets // 2
    if back < exact:
        return offset + back
    bucket = exact
    while bucket < n_buckets - 1:
        # The first distance of the next bucket, on a logarithmic scale from exact to max_distance.
        share = (bucket + 1 - exact) / (n_buckets - exact)
        if back < exact * (max_distance / exact) ** share:
            break
        bucket += 1
    return offset + bucket


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_buckets, max_distance", [(32, 128), (16, 100), (8, 20)])
def test_buckets_of_relative_positions(bidirectional, n_buckets, max_distance):
    bias = RelativePositionBias(2, bidirectional, n_buckets, max_distance)
    back = torch.arange(-300, 301)
    expected = [slow_bucket(b, bidirectional, n_buckets, max_distance) for b in back.tolist()]
    wrong = (bias.bucket(back) != torch.tensor(expected)).nonzero().flatten()
    # Where the border is a whole number, rounding may put it on either side.
    for index in wrong.tolist():
        exact = (n_buckets // 2 if bidirectional else n_buckets) // 2
        position = math.log(abs(int(back[index])) / exact) / math.log(max_distance / exact)
        position *= (n_buckets // 2 if bidirectional else n_buckets) - exact
        assert abs(position - round(position)) < 1e-5
    assert len(wrong) <= 4


def test_relative_bias_is_the_weight_of_the_bucket():
    bias = RelativePositionBias(3, True)
    queries, keys = torch.tensor([4, 9]), torch.tensor([0, 4, 30])
    found = bias(queries, keys)
    assert found.shape == (3, 2, 3)
    for i, query in enumerate(queries):
        for j, key in enumerate(keys):
            bucket = slow_bucket(int(query - key), True, 32, 128)
            assert torch.equal(found[:, i, j], bias.weight.weight[bucket])


def test_rotated_logits_depend_on_the_distance_alone():
    torch.manual_seed(0)
    rotary, q, k = Rotary(8), torch.randn(8), torch.randn(8)

    def logit(query_position, key_position):
        a, b = (
            rotate(x[None], rotary(torch.tensor([p])))[0]
            for x, p in ((q, query_position), (k, key_position))
        )
        return float(a @ b)

    for distance in (-3, 0, 1, 10):
        logits = [logit(start + distance, start) for start in (3, 17, 100)]
        assert logits == pytest.approx([logits[0]] * 3, abs=1e-4)
    assert abs(logit(5, 4) - logit(6, 4)) > 1e-3
    assert logit(4, 4) == pytest.approx(float(q @ k), abs=1e-5)


def test_rotation_turns_each_pair_by_position_times_frequency():
    x, position = torch.randn(8), 5
    found = rotate(x[None], Rotary(8)(torch.tensor([position])))[0]
    for i in range(4):
        angle = position * 10_000 ** (-2 * i / 8)
        pair = complex(float(x[i]), float(x[i + 4])) * complex(math.cos(angle), math.sin(angle))
        assert (float(found[i]), float(found[i + 4])) == pytest.approx(
            (pair.real, pair.imag), abs=1e-5
        )


def test_rms_norm_and_its_gradient_are_those_of_the_definition():
    torch.manual_seed(0)
    norm = RMSNorm(8).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
    x = torch.randn(3, 5, 8, dtype=torch.double, requires_grad=True)
    root = ((x.detach() ** 2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(norm(x), norm.weight * x / root, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(norm(x), norm.weight * x / root, rtol=0, atol=1e-12)

    grad = torch.randn(3, 5, 8, dtype=torch.double)
    found = torch.autograd.grad(norm(x), (x, norm.weight), grad)
    slow = norm.weight * x / ((x**2).mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = torch.autograd.grad(slow, (x, norm.weight), grad)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_keeps_the_type_of_its_input_and_trains_its_weight_in_its_own(dtype):
    norm = RMSNorm(4)
    x = torch.zeros(2, 4, dtype=dtype, requires_grad=True)  # nothing to divide by
    out = norm(x)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype and norm.weight.grad.dtype == torch.float32
    assert not out.any() and x.grad.isfinite().all()


def test_gradient_of_the_rotation_is_that_of_its_formula():
    torch.manual_seed(0)
    place = torch.arange(3) + torch.tensor([[0], [4]])
    rotation = [r.double().unsqueeze(1) for r in Rotary(8)(place)]  # [2, 1, 3, 8]
    x = torch.randn(2, 5, 3, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, rotation), x)
    a, b = x.chunk(2, dim=-1)
    angle = (place.double().unsqueeze(-1) * Rotary(8).frequency.double()).unsqueeze(1)
    cos, sin = angle.cos(), angle.sin()
    slow = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    torch.testing.assert_close(rotate(x, rotation), slow, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "model",
    [
        lambda: small_tiger(),
        lambda: small_tiger(tie_embeddings=True),
        lambda: small_tiger(architecture="encoder_decoder"),
        lambda: small_intrr(),
        lambda: small_pit(),
    ],
    ids=["TIGER", "TIGER-tied", "TIGER-encoder", "IntRR", "PIT"],
)
def test_codes_are_ranked_in_single_precision_under_autocast(model):
    model = model().eval()
    batch = random_batch(3, 6, 30)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        step = model.start(batch)
        logits = [step(0, None, None)]
        codes, parents = torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long)
        logits.append(step(1, codes, parents))
    assert {part.dtype for part in logits} == {torch.float32}


def test_the_last_product_ties_nothing_where_it_ranks_and_follows_autocast_where_it_trains():
    x, weight = torch.randn(1, 32), torch.randn(5000, 32)
    with torch.autocast("cpu", torch.bfloat16):
        trained = logits_of(x, weight)
        with torch.no_grad():
            ranked = logits_of(x.bfloat16(), weight)
    assert trained.dtype == torch.bfloat16 and ranked.dtype == torch.float32
    assert len(ranked.unique()) > 4900 > 2000 > len(trained.unique())
    torch.testing.assert_close(ranked, x.bfloat16().float() @ weight.T)
    torch.testing.assert_close(logits_of(x, weight, weight[:, 0]), x @ weight.T + weight[:, 0])
