"""Collaborative vectors of items: the item embedding of RecBole's SASRec, trained on the fly.

They are what LETTER and DACT learn from beside content where no file of them is given, and what
goes from one period to the next.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from recbole.utils.argument_list import dataset_arguments

from recbole_gr.compat.repeatable import init_seed
from recbole_gr.config import Config
from recbole_gr.data.prepare import Loaders, prepared_data
from recbole_gr.errors import ConfigError
from recbole_gr.registry import get_model, get_trainer
from recbole_gr.storage.cache import cached
from recbole_gr.storage.checkpoint import (
    load_checkpoint,
    random_states_kept,
    save_checkpoint,
)
from recbole_gr.storage.hashes import digest_of, hash_of
from recbole_gr.terminal.log import brief, say, without_logs
from recbole_gr.tokenizer.collaborative.base import CollaborativeRQVAE
from recbole_gr.untrusted.shapes import require, tensor

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

ITEMS = "item_embedding.weight"
_VERSION = 2  # part of every cache key
# What a run's data and their evaluation are; anything else of the run is about its own model.
_COPIED_KEYS = (
    *dataset_arguments, "encoding", "seed", "reproducibility", "use_gpu", "gpu_id", "show_progress",
    "eval_args", "repeatable", "eval_batch_size", "continual_period", "continual_cuts",
    "continual_field", "continual_part_field", "continual_train", "tie_order",
    "max_missing",
)  # fmt: skip
# Of the nested run, what the vectors depend on beside the rows.
_HASHED_KEYS = (
    "hidden_size", "n_layers", "n_heads", "inner_size", "hidden_dropout_prob", "attn_dropout_prob",
    "hidden_act", "layer_norm_eps", "initializer_range", "loss_type", "train_neg_sample_args",
    "epochs", "learner", "learning_rate", "weight_decay", "train_batch_size", "stopping_step",
    "valid_metric", "repeatable", "MAX_ITEM_LIST_LENGTH", "seed",
)  # fmt: skip


_SAVED = {"vectors": tensor("vectors of the items", 2, torch.float32), "figures": dict}
_SAVED["state"] = {...: torch.Tensor}


class ItemVectors(NamedTuple):
    """What training gave.

    Attributes:
        vectors (FloatTensor): ``[n_items - 1, e]`` on the CPU, row ``i`` of item id ``i + 1``.
        state (dict[str, Tensor]): the model's weights, for the next period to start from.
        figures (dict): ``epochs``, ``best_epoch`` (from 0), ``seconds``, ``best_valid_score``,
            ``valid_metric``, ``n_items``, ``n_training_targets``.
    """

    vectors: torch.Tensor
    state: dict[str, torch.Tensor]
    figures: dict[str, Any]


def train_item_vectors(
    config: Config, previous: dict[str, torch.Tensor] | None = None
) -> ItemVectors:
    """Train SASRec on the data of a configuration and take its item embedding.

    RecBole's own SASRec with ``cf_size`` dimensions (default: ``rqvae_dim``), BPR loss and one
    uniformly drawn negative, at most ``cf_epochs`` epochs, stopped early by RecBole on the
    validation split, whose best epoch counts. It sees the training split alone: with
    ``continual_period``, the one of that period. Random states of the process stay as they were;
    equal data, seed and settings give equal vectors.

    Args:
        config (Config): of any model; data, evaluation, seed and device are taken from it.
        previous (dict[str, Tensor] | None): ``state`` of the period before. Training starts from
            it, with rows of zeros for items that are new, at ``cf_continual_learning_rate``.

    Returns:
        ItemVectors

    Raises:
        ConfigError: options out of range, a ``previous`` of other sizes, or a training that
            diverged.

    Source: DACT (arXiv 2603.29705). Which model and schedule its tables come from is inferred:
    their width, padding row, warm start and the items that never move speak for a SASRec with
    sampled negatives that goes on from period to period.
    """
    with random_states_kept():
        return _train(*_prepare(config, previous), previous)


def cached_item_vectors(
    config: Config,
    previous: dict[str, torch.Tensor] | None = None,
    item_tokens: Sequence[str] | None = None,
) -> ItemVectors:
    """As :func:`train_item_vectors`, but trained once: the result is kept in ``sid_dir``.

    Args:
        config, previous: as there.
        item_tokens (list[str] | None): names by item id that the vectors must belong to.

    Raises:
        ConfigError: as there; or SASRec would see other items than ``item_tokens``.
    """
    with random_states_kept():
        nested, dataset, loaders = _prepare(config, previous)
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        if item_tokens is not None and tokens != [str(token) for token in item_tokens]:
            raise ConfigError(
                f"SASRec finds {len(tokens) - 1} items in '{config['dataset']}', in another order "
                f"or number than this model, which has {len(item_tokens) - 1}: give collaborative "
                "vectors as cf_file"
            )
        digest = _digest(nested, tokens, loaders, previous)
        folder = Path(config["sid_dir"] or os.path.join("saved", "sid"))
        path = folder / f"{config['dataset']}-itemcf-{digest[:16]}.pth"

        def load(path: Path) -> ItemVectors:
            result = load_item_vectors(path)
            say("Collaborative item vectors from %s", path)
            return result

        def make() -> ItemVectors:
            return _train(nested, dataset, loaders, previous)

        return cached(path, load, make, save_item_vectors, "set another sid_dir")


def save_item_vectors(path: str | Path, result: ItemVectors) -> None:
    """Write :class:`ItemVectors` to one file of tensors and plain values, whole or not at all."""
    digest = hash_of({**result.state, "": result.vectors})
    save_checkpoint(path, {"item_vectors": result._asdict(), "hash": digest})
    logging.getLogger().info("Collaborative item vectors kept in %s", path)


def load_item_vectors(path: str | Path) -> ItemVectors:
    """Read what :func:`save_item_vectors` wrote; nothing is unpickled.

    Raises:
        ConfigError: the file is missing, damaged, changed or something else.
    """
    kept = load_checkpoint(path, map_location="cpu")
    state = kept.get("item_vectors")
    if not isinstance(state, dict) or set(state) != set(ItemVectors._fields):
        raise ConfigError(f"{path} holds no collaborative item vectors; remove it")
    require(state, _SAVED, path, "Remove it, and they are trained again.", "item_vectors")
    result = ItemVectors(**state)
    if kept.get("hash") != hash_of({**result.state, "": result.vectors}):
        raise ConfigError(f"{path} was changed: its vectors do not have the hash kept with them")
    return result


def grown(
    previous: dict[str, torch.Tensor], fresh: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights of the period before, with rows of zeros for the items that are new.

    Args:
        previous (dict[str, Tensor]): a SASRec's weights, ``ITEMS`` of shape ``[n, e]``.
        fresh (dict[str, Tensor]): a new SASRec's, ``ITEMS`` of shape ``[m, e]``, ``m >= n``.

    Raises:
        ConfigError: other names or sizes.
    """
    missing = sorted(set(fresh) ^ set(previous))
    if missing:
        raise ConfigError(
            f"collaborative vectors of the period before: {missing[0]} is not in both models; they "
            "are of another model or version"
        )
    rows = len(fresh[ITEMS]) - len(previous[ITEMS])
    if rows < 0:
        raise ConfigError(
            f"the period before has {len(previous[ITEMS]) - 1} items, this one "
            f"{len(fresh[ITEMS]) - 1}: continual_period must ascend"
        )
    result = {**previous, ITEMS: F.pad(previous[ITEMS], (0, 0, 0, rows))}
    for name, value in fresh.items():
        if result[name].shape != value.shape:
            raise ConfigError(
                f"collaborative vectors of the period before: {name} has shape "
                f"{list(result[name].shape)}, now {list(value.shape)}; keep cf_size and "
                "MAX_ITEM_LIST_LENGTH as they were"
            )
    return result


def _prepare(
    config: Config, previous: dict[str, torch.Tensor] | None
) -> tuple[Config, Dataset, Loaders]:
    """Configuration of SASRec on the data of `config`, its data set and its three loaders."""
    nested = _sasrec_config(config, previous)
    return nested, *prepared_data(nested)


def _sasrec_config(config: Config, previous: dict[str, torch.Tensor] | None) -> Config:
    given = {key: config[key] for key in _COPIED_KEYS if config[key] is not None}
    rate = "cf_learning_rate" if previous is None else "cf_continual_learning_rate"
    size = _option(config, "cf_size") or _option(config, "rqvae_dim")
    largest = max(config["topk"])
    settings = {
        **given,
        "data_path": os.path.dirname(os.path.normpath(config["data_path"])),
        "eval_args": {**config["eval_args"], "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [largest],
        "valid_metric": f"NDCG@{largest}",
        "hidden_size": size,
        "loss_type": "BPR",
        "train_neg_sample_args": {
            "distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False,
            "candidate_num": 0,
        },
        "epochs": _option(config, "cf_epochs"),
        "stopping_step": 5,
        "learning_rate": _option(config, rate),
    }  # fmt: skip
    nested = Config("SASRec", config["dataset"], config_dict=settings)
    if size % nested["n_heads"]:
        raise ConfigError(
            f"cf_size: {size} must be a multiple of SASRec's {nested['n_heads']} attention heads"
        )
    return nested


def _train(
    nested: Config, dataset: Dataset, loaders: Loaders, previous: dict[str, torch.Tensor] | None
) -> ItemVectors:
    train, valid, _ = loaders
    # Again, so that the vectors do not depend on what was drawn for the data.
    init_seed(nested["seed"], nested["reproducibility"], nested["device"])
    model = get_model("SASRec")(nested, train._dataset)
    if previous is not None:
        model.load_state_dict(grown(previous, model.state_dict()))
    model.to(nested["device"])
    n_items = dataset.item_num - 1
    logging.getLogger().info(
        "SASRec learns collaborative vectors of %d items from %d training targets (%s)",
        n_items, len(train._dataset), "from scratch" if previous is None else "warm start",
    )  # fmt: skip
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        nested["checkpoint_dir"] = folder
        with without_logs():  # no event file: these are not the losses of the run's model
            trainer = get_trainer(nested, type(model))(nested, model)
        trainer.saved_model_file = os.path.join(folder, "sasrec.pth")
        trainer.rate_key = "cf_learning_rate" if previous is None else "cf_continual_learning_rate"
        progress = bool(nested["show_progress"])
        score, _ = trainer.fit(train, valid or None, verbose=False, show_progress=progress)
        best = load_checkpoint(trainer.saved_model_file, map_location="cpu")["state_dict"]
    # A copy of just these values: a view would carry the padding row along.
    state = {name: value.detach().clone() for name, value in best.items()}
    vectors = state[ITEMS][1:].clone()
    figures = {
        "epochs": len(trainer.epoch_seconds),
        "best_epoch": trainer.best_epoch,
        "seconds": perf_counter() - start,
        "best_valid_score": float(score) if valid else None,
        "valid_metric": nested["valid_metric"],
        "n_items": n_items,
        "n_training_targets": len(train._dataset),
    }
    text = "SASRec learned collaborative vectors in {epochs} epochs, {seconds:.1f} s"
    logging.getLogger().info(
        "Collaborative vectors: %s", figures, extra=brief(text.format(**figures))
    )
    return ItemVectors(vectors, state, figures)


def _digest(
    nested: Config, tokens: list[str], loaders: Loaders, previous: dict[str, torch.Tensor] | None
) -> str:
    """Hash of everything that the vectors depend on: rows, settings, starting weights."""
    fields = ("uid_field", "item_list_field", "item_list_length_field", "iid_field")
    splits = [loader._dataset for loader in loaders[:2]]
    rows = [split.inter_feat[getattr(split, name)] for split in splits for name in fields]
    return digest_of(_VERSION, {key: nested[key] for key in _HASHED_KEYS}, tokens, previous, rows)


def _option(config: Config, key: str) -> Any:
    value = config[key]
    return CollaborativeRQVAE.default_options()[key] if value is None else value
