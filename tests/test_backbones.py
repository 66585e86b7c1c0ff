"""Backbones against plain loops over their equations, and TIGER decoding through them."""

import pytest
import torch
import torch.nn.functional as F
from models import SMALL, random_batch, small_intrr, small_tiger
from runs import RUNS, arguments, rest_slow

from recbole_gr import registry
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import best
from recbole_gr.model.backbone import Backbone
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.registry import get_backbone

CONFIG = {**SMALL, "feed_forward_depth": 2, "attention_dropout": 0.0, "position": "relative_bias"}
NAMES = ["transformer", "hstu", "hstu_original"]
OWN = "test_backbones:GRU"


class Nothing(Backbone):
    """A backbone that its author has not come to."""


class GRU(Backbone):
    """A recurrent network from outside: what it keeps of a token is its state, `[B, 1, T, d]`."""

    def __init__(self, config):
        super().__init__()
        self.blocks = [torch.nn.GRU(config["hidden_size"], config["hidden_size"], batch_first=True)]
        self.cells = torch.nn.ModuleList(self.blocks)

    def forward(self, x, *, keep_keys=False):
        states = self.blocks[0](x)[0]
        return (states, [(states.unsqueeze(1), states.unsqueeze(1))]) if keep_keys else states

    def step(self, x, position, parents, own, shared):
        ((states, _),), mask = shared
        if len(own[0]):  # go on from the state of the beam that this one extends
            before = own[0].keys[-1].squeeze(1).gather(1, parents.unsqueeze(2).expand_as(x))
        else:
            last = (mask == 0).sum(3).flatten() - 1
            before = states[torch.arange(len(x)), 0, last].unsqueeze(1).expand_as(x)
        new = self.blocks[0](x.reshape(-1, 1, x.shape[2]), before.reshape(1, -1, x.shape[2]))[0]
        new = new.view_as(x).unsqueeze(1)
        own[0].append(new, new, parents)
        return new.squeeze(1)


def backbone(name, seed=0, **options):
    torch.manual_seed(seed)
    return get_backbone(name)({**CONFIG, **options}).eval()


def slow_heads(block, x, n):
    """``[T, n * H * dh]`` -> n lists of ``[T, H, dh]``."""
    return [part.unflatten(1, (block.n_heads, block.head_size)) for part in x.chunk(n, dim=1)]


def slow_hstu(block, x):
    """One block of the authors' HSTU on ``[T, d]``, key by key (spec 3.5)."""
    u, v, q, k = slow_heads(block, block.projection(block.norm(x)), 4)
    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(block.n_heads):
            place = torch.arange(t + 1)
            rab = block.bias(place[-1:], place)[h, 0]
            logits = [q[t, h] @ k[s, h] / block.head_size**0.5 + rab[s] for s in range(t + 1)]
            weight = F.softplus(torch.stack(logits))
            heads.append(sum(w * v[s, h] for s, w in enumerate(weight / weight.sum())))
        rows.append(torch.cat(heads) * F.silu(u[t].flatten()))
    return x + block.out(torch.stack(rows))


def slow_hstu_original(block, x):
    """One block of HSTU as published, on ``[T, d]``."""
    normed = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    u, v, q, k = slow_heads(block, F.silu(block.projection(normed)), 4)
    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(block.n_heads):
            weight = [F.silu(q[t, h] @ k[s, h] + block.bias.weight[t - s]) for s in range(t + 1)]
            heads.append(sum(w * v[s, h] for s, w in enumerate(weight)) / block.length)
        mixed = torch.cat(heads)
        mixed = (mixed - mixed.mean()) / (mixed.var(correction=0) + 1e-6).sqrt()
        rows.append(mixed * u[t].flatten())
    return x + block.out(torch.stack(rows))


def slow_transformer(stack, x):
    """The T5 decoder of IntRR on ``[T, d]``: unscaled logits, two hidden layers (spec 3.4)."""

    def norm(module, y):
        return module.weight * y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt()

    for block in stack.blocks:
        attention = block.attention
        normed = norm(block.attention_norm, x)
        q, k, v = slow_heads(attention, normed @ attention.query_key_value.weight.T, 3)
        rows = []
        for t in range(len(x)):
            place = torch.arange(t + 1)
            rab = stack.bias(place[-1:], place)[:, 0]
            heads = [
                (k[: t + 1, h] @ q[t, h] + rab[h]).softmax(0) @ v[: t + 1, h]
                for h in range(attention.n_heads)
            ]
            rows.append(torch.cat(heads))
        x = x + attention.out(torch.stack(rows))
        first, second, last = [m for m in block.feed_forward if isinstance(m, torch.nn.Linear)]
        y = norm(block.feed_forward_norm, x)
        x = x + last(F.relu(second(F.relu(first(y)))))
    return norm(stack.norm, x)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_backbone_computes_its_equations(name):
    network, x = backbone(name), torch.randn(2, 7, 16)
    out = network(x)
    for row in range(2):
        slow = x[row]
        if name == "transformer":
            slow = slow_transformer(network, slow)
        else:
            slow_block = {"hstu": slow_hstu, "hstu_original": slow_hstu_original}[name]
            for block in network.blocks:
                slow = slow_block(block, slow)
        assert torch.allclose(out[row], slow, atol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, OWN])
@torch.no_grad()
def test_a_backbone_never_looks_ahead(name):
    network, x = backbone(name), torch.randn(2, 7, 16)
    changed = x.clone()
    changed[:, 4:] = torch.randn(2, 3, 16)
    assert torch.allclose(network(x)[:, :4], network(changed)[:, :4], atol=1e-6)
    assert not torch.allclose(network(x)[:, 4:], network(changed)[:, 4:])


def test_the_released_transformer_and_hstu_have_the_published_number_of_weights():
    sizes = {"hidden_size": 256, "n_layers": 4, "inner_size": 1024}
    transformer = backbone("transformer", **sizes, n_heads=6, head_size=64)
    hstu = backbone("hstu", **sizes, n_heads=8, head_size=32)
    counts = [sum(p.numel() for p in net.parameters()) for net in (transformer, hstu)]
    assert counts == [7_876_032, 1_318_912]  # spec 3.8, counted in the released code


@pytest.mark.parametrize("name", ["hstu", "hstu_original", "transformer", OWN])
@torch.no_grad()
def test_tiger_decodes_with_a_cache_what_whole_passes_give(name):
    from test_tiger import slow_item_scores

    model = small_tiger(backbone=name, feed_forward_depth=2, initializer_range=0.3)
    batch = random_batch(3, 6, 30)
    exact, found = model.exact(batch), model.generate(batch, 30, beam_size=60)
    for row in range(3):
        history = batch["item_id_list"][row, : batch["item_length"][row]]
        slow = slow_item_scores(model, history, batch["user_id"][row])
        assert torch.allclose(exact[row, 1:], slow[1:], atol=1e-4)
    values, order = best(exact, torch.arange(31).expand(3, -1), 30)
    assert torch.equal(found.items, order)


def test_initial_weights_are_the_backbones_own_where_no_range_is_given():
    model = small_tiger(backbone="hstu_original", initializer_range=None, hidden_size=64)
    assert 0.018 < model.decoder.blocks[0].projection.weight.std() < 0.022
    assert 0.9 < model.code_embedding.weight.std() < 1.1


@pytest.mark.parametrize(
    "options, named",
    [
        ({"backbone": "hstu", "architecture": "encoder_decoder"}, "backbone: hstu.*decoder_only"),
        ({"backbone": "torch.nn:Identity"}, "Identity' is no Backbone: .*recbole_gr.Backbone"),
        ({"backbone": "test_intrr:RunningMean"}, "no method step, which TIGER needs.*transformer"),
        ({"backbone": "test_backbones:Nothing"}, "no method forward or step, which TIGER needs"),
        ({"backbone": "hstuu"}, "hstu"),
        ({"feed_forward_depth": 0}, "feed_forward_depth"),
    ],
    ids=str,
)
def test_a_backbone_that_tiger_cannot_use_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        small_tiger(**options)


def test_a_backbone_that_intrr_cannot_use_is_refused():
    with pytest.raises(ConfigError, match="no method forward, which IntRR needs.*hstu"):
        small_intrr(backbone="test_backbones:Nothing")


def test_a_registered_backbone_is_as_good_as_one_of_ours(monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))
    registry.register_backbone("gru", GRU)
    assert registry.is_named("backbone", "gru")
    assert type(small_tiger(backbone="gru").decoder) is GRU
    model = small_intrr(backbone="gru")
    assert type(model.backbone) is GRU and model.calculate_loss(random_batch(4, 6, 30)) > 0


@pytest.mark.parametrize("model", rest_slow("TIGER", "IntRR", "RPG"))
def test_a_backbone_of_ones_own_trains_and_is_evaluated(model, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, settings = RUNS[model]
    result = run_recbole_gr(cmd_args=arguments(name, tiny_folder, **{**settings, "backbone": OWN}))
    assert result["test_result"]["recall@10"] > 0
    assert result["example"]["backbone"] == OWN
