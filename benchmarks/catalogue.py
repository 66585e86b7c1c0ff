"""Random catalogues, histories and untrained models: what a benchmark of speed needs, no data."""

from types import SimpleNamespace

import torch
from recbole.data.interaction import Interaction

from recbole_gr.config.layers import class_settings
from recbole_gr.registry import get_model
from recbole_gr.sid.table import SIDTable

FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
    "device": torch.device("cpu"),
    "MAX_ITEM_LIST_LENGTH": 20,
}


def skewed_table(n_items, sizes, first_codes, seed=0):
    """Distinct random SIDs that branch like learned ones: wide at the top, narrow below.

    Codes of the first level are drawn from ``first_codes`` of them with uneven weights, those of
    the second with weights that differ from node to node, the others evenly.

    Returns:
        SIDTable: items 1 .. ``n_items``.
    """
    generator = torch.Generator().manual_seed(seed)

    def weights(n_rows, n_codes, spread):
        return (torch.randn(n_rows, n_codes, generator=generator) * spread).exp()

    levels = [(weights(1, min(first_codes, sizes[0]), 0.6), None)]
    if len(sizes) > 1:
        levels.append((weights(sizes[0], sizes[1], 1.0), 0))
    codes = torch.empty(0, len(sizes), dtype=torch.long)
    while len(codes) < n_items:  # as many rows again as are missing; repeats are dropped
        missing = n_items - len(codes) + 8
        more = torch.stack(
            [torch.randint(size, (missing,), generator=generator) for size in sizes], 1
        )
        for level, (weight, parent) in enumerate(levels):
            rows = torch.zeros(missing, dtype=torch.long) if parent is None else more[:, parent]
            more[:, level] = torch.multinomial(weight[rows], 1, generator=generator)[:, 0]
        codes = torch.cat([codes, more]).unique(dim=0)
    order = torch.randperm(len(codes), generator=generator)[:n_items]
    return SIDTable.from_item_codes(codes[order], sizes)


def untrained_tiger(table, seed=0, **settings):
    """A TIGER with random weights in evaluation mode; ``settings`` over its property file."""
    return untrained("TIGER", table, seed, **settings)


def untrained(name, table, seed=0, content=None, **settings):
    """A generative model of that name with random weights in evaluation mode; ``settings`` over
    its property file, ``content`` where it takes any."""
    model_class = get_model(name)
    config = class_settings(model_class, "model", {**FIELDS, **settings})
    model_class.prepare_config(config)
    torch.manual_seed(seed)
    catalogue = SimpleNamespace(
        num=lambda field: len(table.codes), id2token=lambda field, item: f"i{item}"
    )
    parts = (config, catalogue, table, *([] if content is None else [content]))
    return model_class(*parts).eval()


def random_histories(n_users, length, n_items, seed=0):
    """A batch of histories, padded on the right; half of them full, the others 5 or more items."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.full((n_users,), length)
    shortest = min(5, length)
    lengths[1::2] = torch.randint(shortest, length + 1, (n_users // 2,), generator=generator)
    items = torch.randint(1, n_items + 1, (n_users, length), generator=generator)
    items[torch.arange(length) >= lengths.unsqueeze(1)] = 0
    return Interaction(
        {
            "user_id": torch.arange(1, n_users + 1),
            "item_id": items[:, 0],
            "item_id_list": items,
            "item_length": lengths,
        }
    )
