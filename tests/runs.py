"""Short runs of very small models on the generated data set."""

import pytest

from recbole_gr.study.cell import run_cell

SMALL = {
    "hidden_size": 16,
    "n_layers": 1,
    "n_heads": 2,
    "head_size": 8,
    "inner_size": 32,
    "dropout": 0.1,
    "beam_size": 15,
    "train_batch_size": 16,
    "MAX_ITEM_LIST_LENGTH": 10,
    "warmup_steps": 3,
    "epochs": 3,
    "show_progress": False,
    "topk": [5, 10],
}


def arguments(model, folder, name="tiny", **settings):
    """A command line for `model` on the data set `name` in `folder`; 8 codes a level for ours."""
    if any(name in model for name in ("TIGER", "PIT", "IntRR", "RPG")):
        settings = {**SMALL, "epochs": 1, "codebook_size": 8, "content_dim": 8, **settings}
    settings = {"epochs": 1, "show_progress": False, "data_path": folder, **settings}
    pairs = [f"--{key}={value}" for key, value in settings.items()]
    return [f"--model={model}", f"--dataset={name}", *pairs]


SIDS = {"codebook_size": 8, "sid_levels": 2, "content_dim": 8, "epochs": 1}  # some collide
PIT = {
    "n_i2t_layers": 1, "n_context_layers": 1, "n_candidates": 3, "csa_negatives": 2,
    "evolve_every": 1,  # so that items move in the first of two epochs
}  # fmt: skip
SHORT = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 10}
NEGATIVES = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False}

# Models of every kind by a name: the model and its settings.
RUNS = {
    "TIGER": ("TIGER", {**SMALL, **SIDS}),
    "TIGER-encoder": ("TIGER", {**SMALL, **SIDS, "architecture": "encoder_decoder"}),
    "TIGER-share": ("TIGER", {**SMALL, **SIDS, "collision": "share"}),
    "TIGER-head": ("TIGER", {**SMALL, **SIDS, "item_head": 1.0}),
    "TIGER-hstu": ("TIGER", {**SMALL, **SIDS, "backbone": "hstu"}),
    "PIT": ("PIT", {**SMALL, **SIDS, **PIT, "epochs": 2, "warmup_epochs": 1}),
    "PIT-encoder": (
        "PIT",
        {**SMALL, **SIDS, **PIT, "warmup_epochs": 1, "architecture": "encoder_decoder"},
    ),
    "IntRR": ("IntRR", {**SMALL, **SIDS, "uid_size": 12, "ran_hidden_size": 24}),
    "RPG": ("RPG", {**SMALL, **SIDS, "codebook_size": 4}),  # some share their SIDs
    "R3VAE": ("R3VAE", {**SMALL, **SIDS, "tokenizer_steps": 4, "sid_gate": "off"}),
    "SASRec": ("SASRec", SHORT),
    "SASRec-BPR": (
        "SASRec",
        {**SHORT, "loss_type": "BPR", "train_neg_sample_args": {**NEGATIVES, "candidate_num": 0}},
    ),
    "SASRec-whole": (
        "SASRec",
        {**SHORT, "train_sample": "sequence", "softmax_negatives": 7, "crop_shuffle": 0.5,
         "negative_distribution": "popularity", "item_text": True, "content_dim": 8},
    ),
    "BERT4Rec": ("BERT4Rec", SHORT),
    "Pop": ("Pop", {"epochs": 1}),
    "ContentKNN": ("ContentKNN", {"content_dim": 8, "MAX_ITEM_LIST_LENGTH": 10}),
}  # fmt: skip


def rest_slow(first, *rest):
    """Cases of a parametrised test, of which the first stands for all in the fast tests."""
    cases = (case if isinstance(case, tuple) else (case,) for case in rest)
    return [first, *(pytest.param(*case, marks=pytest.mark.slow) for case in cases)]


def here(folders, jobs):
    """Workers of a study: its runs in this process."""
    for folder in folders:
        run_cell(folder)
        yield folder, 0
