"""Very small PIT models on random catalogues, built without reading any file."""

from types import SimpleNamespace

import torch
import yaml
from catalogue import FIELDS
from models import random_batch, random_table
from scipy.sparse import csr_matrix

from recbole_gr.model.pit.model import PIT
from recbole_gr.settings import properties_dir

N_ITEMS = 30
SMALL_PIT = {
    "hidden_size": 16,
    "n_layers": 2,
    "n_context_layers": 1,
    "n_encoder_layers": 1,
    "n_i2t_layers": 1,
    "n_heads": 2,
    "head_size": 8,
    "inner_size": 32,
    "dropout": 0.0,
    "initializer_range": 0.3,
    "beam_size": 10,
    "MAX_ITEM_LIST_LENGTH": 6,
    "epochs": 3,
    "stopping_step": 10,
    "select": "min",
    "index_item_prior": "uniform",
    "index_temperature": 1.0,
}
LAZY = {"architecture": "lazy_decoder"}
ENCODER = {"architecture": "encoder_decoder"}


def small_pit(table=None, seed=0, content=None, popularity=None, **options):
    """A PIT of 16 features in evaluation mode, with its defaults from the property file."""
    table = table or random_table(N_ITEMS, (4, 5, 3))
    n_items = len(table.codes)
    with open(properties_dir() / "model" / "PIT.yaml", encoding="utf-8") as file:
        config = {**yaml.safe_load(file), **FIELDS, **SMALL_PIT, **options}
    PIT.prepare_config(config)
    torch.manual_seed(seed)
    if content is None:
        content = torch.randn(n_items, 8)
    counts = torch.arange(n_items) % 7 if popularity is None else popularity
    matrix = csr_matrix(counts.numpy()[None])
    dataset = SimpleNamespace(num=lambda field: n_items, inter_matrix=lambda form: matrix)
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
