"""One run: from the configuration of one model to its test results."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr import registry
from recbole_gr.compat.repeatable import init_seed
from recbole_gr.config.command_lines import example_of
from recbole_gr.config.eval_buckets import check_edges
from recbole_gr.data.prepare import prepared_data
from recbole_gr.data.ties import tested_targets
from recbole_gr.distributed import processes
from recbole_gr.distributed.failures import note_resume
from recbole_gr.errors import ConfigError, Diverged
from recbole_gr.pages.walk import MOST_ITEMS
from recbole_gr.pipeline.item_sids import ItemSIDs, content_vectors, item_sids, walk_of
from recbole_gr.pipeline.new_items import fitted_state
from recbole_gr.report.lines import opening_line
from recbole_gr.run.log_file import start_log
from recbole_gr.storage import memory
from recbole_gr.storage.checkpoint import plain_config, stopped_beside
from recbole_gr.storage.files import DiskFull, require_writable
from recbole_gr.storage.run_files import own_checkpoint
from recbole_gr.terminal.log import prints_to_log, say
from recbole_gr.trainer.buckets import ItemBuckets
from recbole_gr.trainer.confidence import noting_intervals
from recbole_gr.trainer.growth import load_grown
from recbole_gr.trainer.ranks import ranks_for

if TYPE_CHECKING:
    import torch
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.trainer import Trainer

    from recbole_gr.sid.table import SIDTable


@dataclass(frozen=True)
class WarmStart:
    """What a run starts from in place of what its configuration alone would give.

    Attributes:
        sids (ItemSIDs | None): the items' content, SIDs and their quality.
        weights (str | None): a checkpoint of the same model on the same or fewer items.
        checkpoint (str | None): where to keep the best model.
        train (bool): False tests the weights as they are.
        tested (str | None): a checkpoint of the same model on the same data, whose weights are
            validated and tested as they are, its SIDs with them; nothing is trained.
        content (torch.Tensor | None): the items' content `[n_items, d]`, of a model without SIDs.
    """

    sids: ItemSIDs | None = None
    weights: str | None = None
    checkpoint: str | None = None
    train: bool = True
    tested: str | None = None
    content: torch.Tensor | None = None


def run_model(config: Config, saved: bool = True, start: WarmStart = WarmStart()) -> dict[str, Any]:
    """Train and test the one model of `config`.

    Args:
        config (Config): its settings.
        saved (bool): as in `run_recbole_gr`.
        start (Start): what it starts from.

    Returns:
        dict: as `run_recbole_gr` returns for one model, without `table` and `files`.

    Raises:
        ConfigError: settings or data cannot be used, or another run has the checkpoint to resume.
    """
    with contextlib.ExitStack() as until_tested:
        file = start.checkpoint
        if processes.is_rank_zero() and file is None:  # RecBole makes it even if nothing is saved
            require_writable(config["checkpoint_dir"], "set another checkpoint_dir")
        if file is None and saved and start.train:
            if processes.is_rank_zero():  # it has the name, and tells the others
                file = until_tested.enter_context(own_checkpoint(config))
            file = processes.broadcast_object(lambda: file)
        kept = file if start.checkpoint is None else None
        note_resume(kept, config["resume"], processes.is_rank_zero())
        return _run_model(config, saved, start, file)


def _run_model(config: Config, saved: bool, start: WarmStart, file: str | None) -> dict[str, Any]:
    """As `run_model`, with the best model kept in `file`."""
    began = perf_counter()
    memory.reset_peak()
    log = start_log(config)
    logger = logging.getLogger()
    logger.info(config)

    all_splits = start.train or start.tested is not None
    dataset, (train_data, valid_data, test_data) = prepared_data(config, all_splits)
    logger.info(dataset)
    say(opening_line(config, dataset, len(train_data._dataset), log))
    sids = start.sids
    parts: tuple[SIDTable | None, torch.Tensor] | tuple[()] = ()
    if sids is None and registry.is_generative(config.model_class):
        sids = item_sids(config, train_data._dataset)
    if sids is not None:
        parts = sids.table, sids.content.vectors
    elif needs_content(config):
        content = start.content
        parts = None, content_vectors(config, train_data._dataset) if content is None else content

    # Again, so that a model starts the same whatever was drawn for its data.
    seed = config["seed"] + config["local_rank"]
    init_seed(seed, config["reproducibility"], config["device"])
    model = build_model(config, train_data._dataset, *parts)
    logger.info(model)
    if start.weights:
        load_grown(model, start.weights, config)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    if sids is not None and not model.weights_per_item:  # for items that come later
        trainer.content_encoder = sids.content.encoder
        trainer.fitted_tokenizer = fitted_state(config, sids.table, model)
    kept = file or start.tested
    if kept is not None:  # else nothing is saved
        trainer.saved_model_file = kept
    processes.seed_per_rank(config["seed"])
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"])

    progress = config["show_progress"]
    from_file = start.tested is not None or (saved and start.train)
    score = valid_result = None
    if start.train:
        with _saying_how_to_go_on(trainer, saved):
            score, valid_result = trainer.fit(
                train_data, valid_data, saved=saved, show_progress=progress
            )
        if saved:  # of a training that has come to its end now
            stopped_beside(trainer.saved_model_file).unlink(missing_ok=True)
    elif start.tested is not None:
        valid_result = trainer.evaluate(valid_data, show_progress=progress)
        score = valid_result and valid_result[trainer.valid_metric]
    trainer.buckets = buckets = _item_buckets(config, train_data._dataset)
    trainer.ranks = ranks = ranks_for(config, model, (train_data, valid_data), test_data)
    with noting_intervals(trainer.evaluator, test_data._dataset) as intervals:
        test_result = trainer.evaluate(test_data, load_best_model=from_file, show_progress=progress)
    valid_result, test_result = _plain_metrics(valid_result), _plain_metrics(test_result)
    logger.info("best valid: %s", valid_result)
    logger.info("test: %s", test_result)
    test_buckets = buckets.results(trainer.evaluator) if buckets else {}

    epoch_seconds = list(trainer.epoch_seconds)
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "best_valid_score": None if score is None else float(score),
        "best_valid_result": valid_result,
        "test_result": test_result,
        "test_result_without_history": ranks.results(trainer.evaluator) if ranks else None,
        "test_ranks": ranks.arrays(test_data._dataset) if ranks else None,
        "test_interval": intervals.plain(),
        "test_buckets": test_buckets or None,
        "test_targets": tested_targets(test_data._dataset),
        "best_epoch": trainer.best_epoch,
        "valid_curve": trainer.valid_curve,
        "epochs_run": len(epoch_seconds),
        "seconds_per_epoch": float(np.mean(epoch_seconds)) if epoch_seconds else None,
        "seconds_total": perf_counter() - began,
        "parameters": _n_parameters(model),
        "peak_memory_bytes": memory.peak_memory(config["device"]),
        "checkpoint": trainer.saved_model_file if from_file else start.weights,
        "example": example_of(config, test_data._dataset),
        "sid": None if sids is None else sids.report.to_dict(),
        "sid_digest": None if sids is None else sids.table.digest(),
        "generation": trainer.generation_figures,
        "epoch_figures": trainer.epoch_figures,
        "redistribution": model.redistribution() if registry.is_generative(model) else None,
        "walk": None if start.checkpoint else _walk(config, train_data._dataset, sids, model),
        "log": log,
        "config": plain_config(config),
        "given": sorted(config.external_config_dict),
    }


def _walk(
    config: Config, train: Dataset, sids: ItemSIDs | None, model: Any
) -> dict[str, np.ndarray] | None:
    """The SIDs of before and after, where the model gave items others than it was given."""
    if sids is None or not processes.is_rank_zero():
        return None
    versions: dict[str, torch.Tensor] = getattr(model, "sid_versions", dict)()
    if not versions or sids.table.n_items > MOST_ITEMS:
        return None
    made = {name: codes[1:].cpu() for name, codes in versions.items()}
    return walk_of(config, train, sids, config["model"], made).arrays()


@contextlib.contextmanager
def _saying_how_to_go_on(trainer: Trainer, saved: bool) -> Iterator[None]:
    """Give a training that ends early, by a signal, on a full disk or since it diverged, the
    message that it needs."""
    try:
        yield
    except Diverged as error:
        kept = f"Its best epoch, {trainer.best_epoch}, is kept in {trainer.saved_model_file}."
        kept = kept if saved and os.path.isfile(trainer.saved_model_file) else "Nothing was saved."
        raise Diverged(f"{error} {kept}") from error
    except (KeyboardInterrupt, DiskFull) as error:
        if not processes.is_rank_zero():  # rank 0 has the files
            raise
        file = trainer.saved_model_file
        if trainer.stopped_file:
            hint = f"--resume={trainer.stopped_file} goes on from there."
        elif saved and os.path.isfile(file):
            hint = f"--resume={file} goes on from the best epoch so far."
        else:
            hint = "Nothing was saved yet."
        message = f"{error} {hint}".strip()
        if type(error) is not KeyboardInterrupt:  # nobody may be looking
            logging.getLogger().warning("Stopped. %s", message)
        raise type(error)(message) from None


def needs_content(config: Config) -> bool:
    """Whether a model takes the item content as its last argument."""
    model_class = config.model_class
    if registry.is_generative(model_class):
        return model_class.reads_content(config)
    return bool(getattr(model_class, "needs_content", False))


def build_model(
    config: Config,
    train_dataset: Dataset,
    table: SIDTable | None = None,
    vectors: torch.Tensor | None = None,
) -> Any:
    """The untrained model of a configuration, on its device; the SID table and the item content
    `vectors` [n_items, d] are for those that take them."""
    parts = [config, train_dataset]
    if table is not None:
        parts.append(table)
    own = registry.is_generative(config.model_class)
    if needs_content(config):
        parts.append(vectors)
    try:
        with prints_to_log():
            return config.model_class(*parts).to(config["device"])
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{config['model']} needs the package '{error.name}': pip install {error.name}"
        ) from error
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        if own or isinstance(error, ConfigError):
            raise  # our models name the key themselves
        raise ConfigError(
            f"{config['model']} cannot be made with these settings: {error}"
        ) from error


def _item_buckets(config: Config, train_dataset: Dataset) -> ItemBuckets | None:
    """Collects the test by the training frequency of the target item; None where it is off."""
    from recbole_gr.data.frequency import training_counts

    edges = check_edges(config["eval_buckets"])
    if not edges or train_dataset.iid_field is None:  # rows of features alone have no items
        return None
    return ItemBuckets(edges, training_counts(train_dataset), config)


def _n_parameters(model: Any) -> int | None:
    """Trained numbers of a model; None for trees, which have no fixed number of them."""
    if not hasattr(model, "parameters"):
        return None
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _plain_metrics(result: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if result is None else {name: float(value) for name, value in result.items()}
