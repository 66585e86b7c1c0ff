"""Very small PIT models on random catalogues, and slow references for them."""

from types import SimpleNamespace

import pytest
import torch
from catalogue import FIELDS
from models import SMALL, random_batch, random_table
from recbole.data.interaction import Interaction
from scipy.sparse import csr_matrix

from recbole_gr.config.layers import class_settings
from recbole_gr.model.pit.model import PIT

N_ITEMS = 30
SMALL_PIT = {
    **SMALL,
    "n_context_layers": 1,
    "n_encoder_layers": 1,
    "n_i2t_layers": 1,
    "epochs": 3,
    "stopping_step": 10,
    "evolve": "pairs",
    "index_item_prior": "uniform",
    "index_temperature": 1.0,
}
LAZY = {"architecture": "lazy_decoder"}
ENCODER = {"architecture": "encoder_decoder"}


def small_pit(table=None, seed=0, content=None, popularity=None, taken=None, **options):
    """A PIT of 16 features in evaluation mode, with its defaults from the property file but for
    pairs that evolve; ``taken`` are the rows of its training data."""
    table = table or random_table(N_ITEMS, (4, 5, 3))
    n_items = len(table.codes)
    config = class_settings(PIT, "model", {**FIELDS, **SMALL_PIT, **options})
    PIT.prepare_config(config)
    torch.manual_seed(seed)
    if content is None:
        content = torch.randn(n_items, 8)
    counts = torch.arange(n_items) % 7 if popularity is None else popularity
    matrix = csr_matrix(counts.numpy()[None])
    none = torch.zeros(0, dtype=torch.long)
    dataset = SimpleNamespace(
        num=lambda field: n_items, inter_matrix=lambda form: matrix, uid_field="user_id",
        iid_field="item_id", inter_feat=taken or {"user_id": none, "item_id": none},
    )  # fmt: skip
    model = PIT(config, dataset, table, content).eval()
    torch.nn.init.normal_(model.items.offset, std=0.3)
    return model


def evolving(model):
    """The model after the bridge."""
    model.start_co_evolution()
    return model


def whole_batch(n_rows=4, max_length=6, n_items=N_ITEMS, seed=0):
    """A batch of whole sequences: every next item of a row is a target."""
    batch = random_batch(n_rows, max_length, n_items, seed)
    batch["n_targets"] = batch["item_length"].clone()
    return batch


def batch_for(model, **options):
    """A batch that suits the model's training samples."""
    if model.whole:
        return whole_batch(**options)
    return random_batch(options.get("n_rows", 4), 6, N_ITEMS, options.get("seed", 0))


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


def train_epoch(model, seeds, lr=0.05):
    """Train on a few random batches and end the epoch; returns its figures."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for seed in seeds:
        optimizer.zero_grad()
        model.calculate_loss(whole_batch(n_rows=16, seed=seed)).backward()
        optimizer.step()
    figures = model.end_epoch()
    model.eval()
    return figures


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
