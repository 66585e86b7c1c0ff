"""The required contents of a checkpoint, for each use of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from recbole_gr.data.sources import SOURCES
from recbole_gr.errors import ConfigError
from recbole_gr.sid.table import META, check_codebooks
from recbole_gr.storage.checkpoint import random_states_kept, restore_random_states
from recbole_gr.tokenizer.base import SAVED as TOKENIZER
from recbole_gr.untrusted.shapes import (
    ANY,
    NAME,
    OrNone,
    Rule,
    Shape,
    at_least,
    require,
    taking,
    tensor,
)

REMEDY = "Take another file, or train the model again."

_COUNT = at_least(0)
_LOSS = Rule(
    "a number, or several",
    lambda value: all(
        isinstance(part, (int, float))
        for part in (value if isinstance(value, (list, tuple)) else [value])
    ),
)
_BYTES = tensor("a tensor of bytes", 1, torch.uint8)
_TOKENS = {"items": OrNone(str), "n_users": OrNone(_COUNT), "users": OrNone(str)}
_RANDOM = {"python": [ANY], "numpy": [ANY], "torch": _BYTES, "cuda": [_BYTES]}
#: What a configuration is made of again.
CONFIG: Shape = {"config": {"model": str, "dataset": str}}
#: Of every checkpoint.
ABOUT: Shape = {**CONFIG, "data?": OrNone(_TOKENS)}
#: Of a tree model, whose trees its own package reads (`with_trees`).
TREES: Shape = {**ABOUT, "trees": ANY}
#: What makes content of items that come later: of vectors, of texts, and by which means.
ENCODER: Shape = {"source": str}
OF_VECTORS: Shape = {"dim": at_least(1)}
OF_TEXTS: Shape = {"columns": {...: str}, "separator": str}
OF_SENTENCES: Shape = {"text_encoder": str}
OF_TERMS: Shape = {
    "terms": str,
    "idf": tensor("a weight for each term", 1, torch.float32),
    "components": tensor("a matrix [d, terms]", 2, torch.float32),
}
#: To test a model and to answer with it.
WEIGHTS: Shape = {
    **ABOUT,
    "state_dict": {...: torch.Tensor},
    "other_parameter": {...: ANY},
    "sid?": {"sizes": [at_least(1)], "digest": str, "meta": META},
    "content?": OrNone(ENCODER),
    "tokenizer?": OrNone(TOKENIZER),
    "members?": [{**CONFIG, "other_parameter": {...: ANY}}],  # of a fusion
}
#: To go on with its training.
TRAINING: Shape = {
    "epoch": at_least(-1),
    "best_epoch": at_least(-1),
    "cur_step": _COUNT,
    "best_valid_score": float,
    "best_valid_result": OrNone(dict),
    "files?": OrNone(SOURCES),
    "loader_states": [_BYTES],
    "valid_curve?": [[float]],
    "optimizer": {"state": dict, "param_groups": [dict]},
    "random_states": _RANDOM,
    "random_states_of_others?": [_RANDOM],
    "place?": {
        "batches": OrNone(_COUNT), "loss": OrNone(_LOSS), "random": _RANDOM, "best": NAME,
        "has_best": bool,
    },
}
#: Likewise of a generative model.
GENERATIVE: Shape = {**TRAINING, "n_steps": _COUNT}
#: Of a trainer that keeps a model's figures.
FIGURES: Shape = {"epoch_figures": [ANY]}
#: Of PIT's phases.
PHASES: Shape = {
    "phase": Rule("1 or 2", lambda value: value in (1, 2)),
    "phase_start": _COUNT,
}


def require_weights(state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """See that a checkpoint holds what a model is restored from.

    Raises:
        ConfigError: names the file, and the key that is missing or wrong.
    """
    require(state, TREES if "trees" in state else WEIGHTS, file, REMEDY)
    encoder = state.get("content")
    if encoder is not None:
        of_texts = "dim" not in encoder
        means = OF_SENTENCES if encoder["source"] == "sentence" else OF_TERMS
        shape = {**OF_TEXTS, **means} if of_texts else OF_VECTORS
        require(encoder, shape, file, REMEDY, "content")
    if "sid" in state:
        weights, sizes = state["state_dict"], state["sid"]["sizes"]
        codes = {"codes": tensor("a table of SIDs", 2, torch.int64)}
        require(weights, codes, file, REMEDY, "state_dict")
        try:
            check_codebooks(sizes, len(weights["codes"]))
        except ConfigError as error:
            raise ConfigError(f"'{file}': sid.sizes: {error}. {REMEDY}") from error


def load_optimizer(
    optimizer: Optimizer, state: Mapping[str, Any], file: str | os.PathLike[str]
) -> None:
    """Put the state of an optimiser that a checkpoint holds into one of the same kind.

    torch takes any state, and fails at the first step that it does not fit.

    Raises:
        ConfigError: it is of other parameters or of another kind.
    """
    saved = state["optimizer"]
    with taking("optimizer", file, REMEDY):
        for own, group in zip(optimizer.param_groups, saved["param_groups"]):
            for key in own.keys() & group.keys() | {"lr"}:
                kind = type(own[key])
                if not isinstance(group[key], (int, float) if kind in (int, float) else kind):
                    raise ValueError(f"{key} is {group[key]!r}")
        optimizer.load_state_dict(dict(saved))
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                if isinstance(value, torch.Tensor) and value.shape not in ((), parameter.shape):
                    raise ValueError(f"{name} has shape {list(value.shape)}")


def require_generators(state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """See that the states of random generators in a checkpoint, taken much later, can be taken.

    Raises:
        ConfigError: they cannot.
    """
    with taking("loader_states", file, REMEDY):
        for generator in state["loader_states"]:
            torch.Generator().set_state(generator.cpu())
    with random_states_kept(), taking("random_states", file, REMEDY):
        for part in (state, state.get("place")):
            if part is not None:
                restore_random_states(part["random" if part is not state else "random_states"])
