"""Models on random catalogues, built without reading any file."""

import torch
from catalogue import untrained, untrained_tiger
from recbole.data.interaction import Interaction

from recbole_gr.sid.table import SIDTable

SMALL = {
    "hidden_size": 16,
    "n_layers": 2,
    "n_encoder_layers": 2,
    "n_heads": 2,
    "head_size": 8,
    "inner_size": 32,
    "dropout": 0.0,
    "initializer_range": 0.3,
    "beam_size": 10,
    "MAX_ITEM_LIST_LENGTH": 6,
    "loss_normalisation": "codebook",  # as in the papers; tests of the other ask for it
}


def random_table(n_items, sizes, seed=0):
    """A SID table of random distinct SIDs (as long as there are enough of them)."""
    generator = torch.Generator().manual_seed(seed)
    total = int(torch.tensor(sizes).prod())
    number = torch.randperm(total, generator=generator)[:n_items]
    codes = []
    for size in reversed(sizes):
        codes.insert(0, number % size)
        number = number // size
    return SIDTable.from_item_codes(torch.stack(codes, 1), sizes)


def small_tiger(table=None, seed=0, **options):
    """A TIGER of 16 features in evaluation mode, with its defaults from the property file."""
    return untrained_tiger(table or random_table(30, (4, 5, 3)), seed, **{**SMALL, **options})


def small_intrr(table=None, seed=0, **options):
    """An IntRR of 16 features in evaluation mode, without alignment loss unless asked for."""
    sizes = {"uid_size": 12, "ran_hidden_size": 24, "feed_forward_depth": 2, "codebook_std": 0.5,
             "lambda_aln": 0.0}  # fmt: skip
    settings = {**SMALL, **sizes, **options}
    return untrained("IntRR", table or random_table(30, (4, 5, 3)), seed, **settings)


def random_batch(n_rows, max_length, n_items, seed=0, n_targets=None):
    """A batch as RecBole gives it: histories padded on the right with 0."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, max_length + 1, (n_rows,), generator=generator)
    length[0] = max_length
    items = torch.randint(1, n_items + 1, (n_rows, max_length), generator=generator)
    items[torch.arange(max_length) >= length.unsqueeze(1)] = 0
    batch = {
        "user_id": torch.arange(1, n_rows + 1),
        "item_id": torch.randint(1, n_items + 1, (n_rows,), generator=generator),
        "item_id_list": items,
        "item_length": length,
        "n_targets": torch.ones_like(length) if n_targets is None else n_targets,
    }
    return Interaction(batch)


def rows_of(batch, index):
    """The rows ``index`` of a batch, histories cut to their longest."""
    part = {name: batch[name][index] for name in batch.columns}
    part["item_id_list"] = part["item_id_list"][:, : int(part["item_length"].max())]
    return Interaction(part)
