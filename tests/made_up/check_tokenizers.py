"""Tokenizers on a device that is no CPU: the same codes, and no training step that is waited for.

Clusters, evaluations and closing figures are made on the CPU or read from the device; the waits for
them may not grow with the number of steps.
"""

import made_up_device
import pytest
import torch
from made_up_device import never_waiting, waits

from recbole_gr.quality.cohesion import group_cohesion
from recbole_gr.registry import get_tokenizer
from recbole_gr.sid.counting import counts_of

DIM, N = 12, 48
SMALL = {
    "sid_levels": 2, "codebook_size": 6, "tokenizer_epochs": 2, "continual_epochs": 2,
    "rqvae_hidden": [10], "rqvae_dim": 8, "tokenizer_evaluate_every": 50, "diversity_clusters": 2,
    "i2i_hidden": 10, "i2i_dim": 8, "i2i_epochs": 2, "rating_topk": 3,
}  # fmt: skip
CONTENT, LATER = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
VECTORS[::7] = 0.0
SIGNALS = {
    "cf_vectors": VECTORS,
    "item_pairs": torch.randint(N, (100, 2), generator=torch.Generator().manual_seed(2)),
}
BATCHES = {"tokenizer_batch_size": 24}, {"tokenizer_batch_size": 6}
STEPS = {"tokenizer_steps": 2}, {"tokenizer_steps": 8}
PAIRS = {"i2i_batch_size": 50}, {"i2i_batch_size": 10}


@pytest.fixture
def there():
    """The device."""
    with made_up_device.device() as device:
        yield device


def made(name, options):
    tokenizer = get_tokenizer(name)
    known = tokenizer.default_options()
    return tokenizer({**{k: v for k, v in SMALL.items() if k in known}, **options}, DIM)


def fitted(name, options, device="cpu", later=None):
    """A tokenizer fitted there, or by the method ``later`` from one that was, and the waits."""
    tokenizer = made(name, options).to(device)
    signals = {name: SIGNALS[name] for name in tokenizer.signals}
    with waits() as noted:
        tokenizer.fit(CONTENT, signals=signals, progress=False)
    if later is None:
        return tokenizer, noted
    following = made(name, options).to(device)
    with waits() as noted:
        getattr(following, later)(tokenizer, LATER, VECTORS.flip(0), progress=False)
    return following, noted


@made_up_device.needed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "sizes", "options", "later"), [
    ("RKMeans", ({}, {}), {}, None),
    ("OPQ", ({}, {}), {"codebook_size": 4}, None),
    ("RVQ", STEPS, {"tokenizer_batch_size": 12}, None),
    ("I2IRKMeans", PAIRS, {}, None),
    ("RQVAE", BATCHES, {}, None),
    ("RQVAE", BATCHES, {"restart_dead_codes": False, "tokenizer_select_by": "collision"}, None),
    ("LETTER", BATCHES, {}, None),
    ("LETTER", BATCHES, {"cf_mask_untrained": True, "diversity_weight": 0.0}, None),
    ("LETTER", BATCHES, {}, "fine_tune"),
    ("DACT", BATCHES, {}, None),
    ("DACT", BATCHES, {}, "fine_tune"),
    ("DACT", BATCHES, {}, "fit_continual"),
    ("DACT", BATCHES, {"cf_mask_untrained": True, "drift_share": 0.5}, "fit_continual"),
    *(("R3VAE", STEPS, {"rating_mode": mode}, None)
      for mode in ("softmax", "topk", "top1_rating", "top1_projection", "ste")),
    *(("R3VAE", STEPS, options, None) for options in (
        {"sc_regulariser": False}, {"pd_regulariser": False}, {"pd_max_codewords": 4},
        {"sc_vectors": "surrogate"}, {"sc_vectors": "quantized"}, {"sc_vectors": "residual"},
        {"reference_init": "none"}, {"reference_init": "uniform"}, {"kmeans_init": False},
        {"reconstruction_loss": "cosine"}, {"decoder": "mlp", "clip_gradient": 1.0},
    )),
])  # fmt: skip
def test_steps_do_not_wait_and_codes_are_those_of_a_cpu(there, name, sizes, options, later):
    few, of_few = fitted(name, {**options, **sizes[0]}, there, later)
    many, of_many = fitted(name, {**options, **sizes[1]}, there, later)
    assert len(of_many) == len(of_few), of_many[:5]
    on_cpu, _ = fitted(name, {**options, **sizes[1]}, "cpu", later)
    codes = on_cpu.encode(CONTENT)
    assert torch.equal(many.encode(CONTENT), codes)
    content, given = CONTENT.to(there), codes.to(there)
    with never_waiting():
        many.encode_batch(content)
        many.last_level_batch(content, given)
        many.quantized_batch(content, given)


@made_up_device.needed
@pytest.mark.parametrize("policy", ["suffix", "sinkhorn", "share"])
def test_a_tokenizer_there_gives_the_table_of_a_cpu(there, policy):
    options = {"collision": policy}
    table = fitted("RQVAE", options, there)[0].tokenize(CONTENT)
    assert table.digest() == fitted("RQVAE", options)[0].tokenize(CONTENT).digest()


@made_up_device.needed
def test_counting_and_cohesion_do_not_wait(there):
    groups, vectors = torch.tensor([0, 2, 2, 2]).to(there), CONTENT[:4].to(there)
    with never_waiting():
        counts, cohesion = counts_of(groups, 4), group_cohesion(vectors, groups, 4)
    assert counts.tolist() == [1, 0, 3, 0]
    assert float(cohesion) == pytest.approx(float(group_cohesion(CONTENT[:4], groups.cpu(), 4)))
