"""Training through the `transformer` backbone against a T5 decoder written out here."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from models import random_batch, small_intrr, small_tiger
from runs import RUNS, arguments
from torch import nn

from recbole_gr.errors import ConfigError
from recbole_gr.model.layers import Stack
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.storage.checkpoint import FORMAT_VERSION, load_checkpoint
from recbole_gr.trainer.weights import load_weights

BACKBONE = {"backbone": "transformer", "feed_forward_depth": 2, "attention_dropout": 0.0}
T5 = {**BACKBONE, "position": "relative_bias", "head_size": 16, "initializer_range": None}
MODELS = {"IntRR": (small_intrr, "backbone"), "TIGER": (small_tiger, "decoder")}
QUERIES = "attention.query_key_value.weight"


class PlainT5(nn.Module):
    """The decoder of T5 without cross-attention: ``softmax(q k^T + bias) v``, no scale.

    A module of its own, whose weights begin as those of a backbone.
    """

    def __init__(self, stack):
        super().__init__()
        self.distance_bias = nn.Parameter(stack.bias.weight.weight.detach().clone())  # [buckets, H]
        self.last_norm = nn.Parameter(stack.norm.weight.detach().clone())
        self.layers = nn.ModuleList()
        for block in stack.blocks:
            heads = (block.attention.n_heads, block.attention.head_size)
            parts = block.attention.query_key_value.weight.detach().chunk(3)
            layer = nn.ParameterDict(
                {
                    name: nn.Parameter(part.clone().unflatten(0, heads))
                    for name, part in zip(("query", "key", "value"), parts)
                }
            )
            layer["out"] = nn.Parameter(block.attention.out.weight.detach().clone())
            layer["norm"] = nn.Parameter(block.attention_norm.weight.detach().clone())
            layer["inner_norm"] = nn.Parameter(block.feed_forward_norm.weight.detach().clone())
            linears = [m for m in block.feed_forward.modules() if isinstance(m, nn.Linear)]
            for number, linear in enumerate(linears):
                layer[f"weight{number}"] = nn.Parameter(linear.weight.detach().clone())
                layer[f"shift{number}"] = nn.Parameter(linear.bias.detach().clone())
            self.layers.append(layer)

    @staticmethod
    def bucket(distance, n_buckets):
        """T5's: one for each small distance, then ever wider ones up to 128 places."""
        exact = n_buckets // 2
        if distance < exact:
            return distance
        wide = math.log(distance / exact) / math.log(128 / exact) * (n_buckets - exact)
        return min(exact + int(wide), n_buckets - 1)

    @staticmethod
    def normed(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def forward(self, x):
        length, n_buckets = x.shape[1], len(self.distance_bias)
        far = [
            [self.bucket(max(t - s, 0), n_buckets) for s in range(length)] for t in range(length)
        ]
        bias = self.distance_bias[torch.tensor(far)]  # [T, S, H]
        future = torch.tensor([[s > t for s in range(length)] for t in range(length)])
        for layer in self.layers:
            y = self.normed(x, layer["norm"])
            q, k, v = (
                torch.einsum("btd,hed->bhte", y, layer[n]) for n in ("query", "key", "value")
            )
            logits = torch.einsum("bhte,bhse->bhts", q, k) + bias.permute(2, 0, 1)
            weights = logits.masked_fill(future, -torch.inf).softmax(-1)
            mixed = torch.einsum("bhts,bhse->bthe", weights, v).flatten(2)
            x = x + mixed @ layer["out"].T
            y = self.normed(x, layer["inner_norm"])
            for number in range(3):
                y = F.linear(y, layer[f"weight{number}"], layer[f"shift{number}"])
                y = F.relu(y) if number < 2 else y
            x = x + y
        return self.normed(x, self.last_norm)


def losses(model, n_steps=20):
    """Of a model in so many steps of Adam on two batches in turn."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = [random_batch(16, 6, 30, seed) for seed in (1, 2)]
    found = []
    for step in range(n_steps):
        optimizer.zero_grad()
        loss = model.calculate_loss(batches[step % 2])
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.mark.parametrize("name", MODELS)
def test_adam_follows_a_t5_decoder_from_equal_weights(name):
    make, part = MODELS[name]
    ours = make(**T5)
    theirs = copy.deepcopy(ours)
    setattr(theirs, part, PlainT5(getattr(ours, part)))
    # The same function at the start, another one to Adam: a scale that the weights make up for.
    folded = copy.deepcopy(ours)
    for block in getattr(folded, part).blocks:
        block.attention.scale = None
        with torch.no_grad():
            block.attention.query_key_value.weight[:32] *= 4.0
    expected = losses(theirs)
    assert torch.allclose(losses(ours), expected, rtol=0, atol=2e-5)
    apart = (losses(folded) - expected).abs()
    assert apart[0] < 1e-5 and apart.max() > 1e-3


def of_format_1(model, part):
    """What a checkpoint of format 1 held of a model that computes what `model` does."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for name in weights:
        if name.startswith(part) and name.endswith(QUERIES):
            weights[name][:32] *= 4.0
    return {"state_dict": weights, "other_parameter": {}, "format_version": 1}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_checkpoint_with_the_scale_in_its_weights_answers_as_before(name):
    make, part = MODELS[name]
    trained, model = make(**T5, seed=1), make(**T5)
    state = of_format_1(trained, part)
    scaled = Stack(2, 16, 2, 16, 32, 0.0, depth=2).eval()  # as format 1 computed
    names = [n for n in state["state_dict"] if n.startswith(f"{part}.")]
    scaled.load_state_dict({n.removeprefix(f"{part}."): state["state_dict"][n] for n in names})
    load_weights(model, state, "old.pth")
    x = torch.randn(2, 7, 16)
    assert torch.allclose(getattr(model, part)(x), scaled(x), atol=1e-5)
    batch = random_batch(4, 6, 30)
    assert torch.allclose(model.exact(batch)[:, 1:], trained.exact(batch)[:, 1:], atol=1e-5)
    state = of_format_1(trained, "none")
    load_weights(model, {**state, "format_version": FORMAT_VERSION}, "new.pth")
    assert torch.allclose(model.exact(batch)[:, 1:], trained.exact(batch)[:, 1:], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_rotary_positions_come_with_scaled_logits_and_their_weights_stay(name):
    make, part = MODELS[name]
    model = make(**{**T5, "position": "rotary"})
    assert all(block.attention.scale is None for block in getattr(model, part).blocks)
    weights = {n: value.clone() for n, value in model.state_dict().items()}
    state = {"state_dict": weights, "other_parameter": {}, "format_version": 1}
    load_weights(model, state, "old.pth")
    assert all(map(torch.equal, model.state_dict().values(), weights.values()))


def test_training_of_such_a_checkpoint_does_not_go_on(trained, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, old = load_checkpoint(trained("IntRR")["checkpoint"]), tmp_path / "old.pth"
    torch.save({**state, "format_version": 1}, old)
    model, settings = RUNS["IntRR"]
    given = arguments(model, tiny_folder, **{**settings, "epochs": 2, "resume": old})
    with pytest.raises(
        ConfigError, match=r"old\.pth' is of an earlier version, which trained back"
    ):
        run_recbole_gr(cmd_args=given)
