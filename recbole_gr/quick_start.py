"""One call from settings to results, for one model or for several on the same data."""

import dataclasses
import hashlib
import logging
from time import perf_counter

import numpy as np
from recbole.utils import EvaluatorType, init_seed

from recbole_gr import memory, registry, report
from recbole_gr.buckets import check_edges
from recbole_gr.config import Config
from recbole_gr.errors import ConfigError, ModelsFailed
from recbole_gr.report_buckets import bucket_table
from recbole_gr.run_files import checkpoint_file, report_folder, start_log
from recbole_gr.settings import external_settings
from recbole_gr.trainer.buckets import ItemBuckets
from recbole_gr.trainer.checkpoint import plain_config


def run_recbole_gr(
    model=None,
    dataset=None,
    config_file_list=None,
    config_dict=None,
    cmd_args=None,
    saved=True,
):
    """Train and test models of ours and of RecBole's on one data set, and write a report.

    Args:
        model (str | type | list | None): a name, a class, or several as a list or as
            "TIGER,SASRec"; None takes the key `model` of the settings.
        dataset (str | None): data set name; None takes the key `dataset`.
        config_file_list (list[str] | None): YAML files of settings.
        config_dict (dict | None): settings.
        cmd_args (list[str] | None): `--key=value` arguments, which win over all others.
        saved (bool): keep the best model's checkpoint and test that; otherwise test the last
            epoch's.

    Returns:
        dict: for one model `model`, `dataset`, `best_valid_score`, `best_valid_result`,
        `test_result`, `test_buckets` (metrics by training frequency of the target item, or None),
        `test_targets` (number and digest), `best_epoch` (from 0), `epochs_run`,
        `seconds_per_epoch` (training), `seconds_total`, `parameters` (trainable),
        `peak_memory_bytes`, `checkpoint`, `sid` (quality of the semantic IDs or None), `log`,
        `config`, `epoch_figures` (what a trainer notes of each epoch, or None), `redistribution`
        (how single items are spread over codes, or None), `table` (markdown), `bucket_table`,
        `files`. For several `results` (a list of such), `table`, `bucket_table` and
        `files` (paths by "md", "csv", "json", "png").

    Raises:
        ConfigError: settings or data cannot be used. All models' settings are checked before the
            first one is trained.
        ModelsFailed: one of several models failed; the others have run and are in the report.
    """
    settings = (config_file_list, config_dict, cmd_args)
    models = _requested_models(model, *settings)
    configs = [Config(name, dataset, *settings, other_models=models) for name in models]
    if len(configs) > 1 and configs[0]["resume"]:
        raise ConfigError("resume: a checkpoint is of one model; give --model one name.")
    _check_inputs(configs)
    folder = report_folder(configs)

    results, failures = [], []
    for config in configs:
        try:
            results.append(run_model(config, saved=saved))
        except Exception as error:
            if len(configs) == 1 or (isinstance(error, ConfigError) and not results):
                raise  # nothing is trained yet that could be lost
            if isinstance(error, ConfigError):
                logging.getLogger().error("%s failed: %s", config["model"], error)
            else:
                logging.getLogger().exception("%s failed", config["model"])
            failures.append((config["model"], error))
            continue
        # After each model: what is finished stays, whatever happens to the rest.
        files = report.write_report(results, folder)

    if failures:
        if not results:
            raise failures[0][1]
        names = ", ".join(f"{name} ({error})" for name, error in failures)
        raise ModelsFailed(
            f"Failed: {names}. The results of the other models are in {files['md']}.",
            report.markdown_table(results),
        ) from failures[0][1]
    _warn_if_targets_differ(results)
    tables = {"table": report.markdown_table(results), "bucket_table": bucket_table(results)}
    logging.getLogger().info("Results in %s", folder)
    if len(results) == 1:
        return {**results[0], **tables, "files": files}
    return {"results": results, **tables, "files": files}


def run_model(config, saved=True):
    """Train and test the one model of `config`.

    Args:
        config (Config): its settings.
        saved (bool): as in `run_recbole_gr`.

    Returns:
        dict: as `run_recbole_gr` returns for one model, without `table` and `files`.
    """
    from recbole_gr.data import create_dataset, data_preparation

    start = perf_counter()
    memory.reset_peak()
    init_seed(config["seed"], config["reproducibility"])
    log = start_log(config)
    logger = logging.getLogger()
    logger.info(config)

    dataset = create_dataset(config)
    logger.info(dataset)
    _check_catalogue(config, dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    content, sid_table, quality = _semantic_ids(config, train_data)

    # Again, so that a model starts the same whatever was drawn for its data.
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    parts = [config, train_data._dataset]
    if sid_table is not None:
        parts.append(sid_table)
    if getattr(config.model_class, "needs_content", False):
        parts.append(content.vectors)
    model = config.model_class(*parts).to(config["device"])
    logger.info(model)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    trainer.saved_model_file = checkpoint_file(config)
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"])

    progress = config["show_progress"]
    score, valid_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=progress)
    trainer.buckets = buckets = _item_buckets(config, train_data._dataset)
    test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=progress)
    logger.info("best valid: %s", valid_result)
    logger.info("test: %s", test_result)
    test_buckets = buckets.results(trainer.evaluator) if buckets else {}

    epoch_seconds = list(getattr(trainer, "epoch_seconds", []))
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "best_valid_score": float(score),
        "best_valid_result": _plain_metrics(valid_result),
        "test_result": _plain_metrics(test_result),
        "test_buckets": test_buckets or None,
        "test_targets": _targets(test_data._dataset),
        "best_epoch": getattr(trainer, "best_epoch", None),
        "epochs_run": len(epoch_seconds),
        "seconds_per_epoch": float(np.mean(epoch_seconds)) if epoch_seconds else None,
        "seconds_total": perf_counter() - start,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "peak_memory_bytes": memory.peak_memory(config["device"]),
        "checkpoint": trainer.saved_model_file if saved else None,
        "sid": quality,
        "generation": getattr(trainer, "generation_figures", None),
        "epoch_figures": getattr(trainer, "epoch_figures", None),
        "redistribution": model.redistribution() if hasattr(model, "redistribution") else None,
        "log": log,
        "config": plain_config(config),
    }


def _check_inputs(configs):
    """Raise a ConfigError for input that cannot be used, before the first model is trained.

    The first model meets its own input before it trains. A generative model further back makes its
    SIDs here, which are kept for it, as a bad SID or content file shows only against the items.
    """
    from recbole_gr.data import create_dataset, data_preparation
    from recbole_gr.data.atomic import check_inter_files
    from recbole_gr.trainer.baseline import load_checkpoint_of

    for config in configs:
        check_inter_files(config)
        if config["resume"]:
            load_checkpoint_of(config, config["resume"], map_location="cpu")
    for config in configs[1:]:
        if getattr(config.model_class, "generative", False):
            init_seed(config["seed"], config["reproducibility"])
            dataset = create_dataset(config)
            _check_catalogue(config, dataset)
            _semantic_ids(config, data_preparation(config, dataset)[0])


def _semantic_ids(config, train_data):
    """A generative model's item content, SID table and its quality as plain numbers; None for
    other models."""
    if not getattr(config.model_class, "generative", False):
        return None, None, None
    from recbole_gr.data.content import item_content
    from recbole_gr.data.signals import item_behaviour, tokenizer_signals
    from recbole_gr.sid.gate import apply_gate
    from recbole_gr.tokenizer.pipeline import prepare_sid

    content = item_content(config, train_data._dataset)
    signals = tokenizer_signals(config, train_data._dataset)
    table, quality = prepare_sid(config, content, signals, item_behaviour(train_data._dataset))
    apply_gate(config, quality)
    if dataclasses.is_dataclass(quality):
        quality = dataclasses.asdict(quality)
    return content, table, quality


def _item_buckets(config, train_dataset):
    """Collects the test by the training frequency of the target item; None where it is off."""
    from recbole_gr.data.frequency import training_counts

    edges = check_edges(config["eval_buckets"])
    return ItemBuckets(edges, training_counts(train_dataset), config) if edges else None


def _check_catalogue(config, dataset):
    ranking = config["eval_type"] == EvaluatorType.RANKING
    if ranking and max(config["topk"]) > dataset.item_num - 1:
        raise ConfigError(
            f"topk {max(config['topk'])} is larger than the catalogue: '{config['dataset']}' has "
            f"{dataset.item_num - 1} items."
        )


def _requested_models(model, config_file_list, config_dict, cmd_args):
    """The models of a run as a list of names or classes."""
    if model is None:
        for _, settings in external_settings(config_file_list, config_dict, cmd_args):
            model = settings.get("model", model)
    if not model:
        raise ConfigError("No model is given: add --model=TIGER, for example.")
    models = model if isinstance(model, (list, tuple)) else [model]
    split = []
    for entry in models:
        split += [name.strip() for name in entry.split(",")] if isinstance(entry, str) else [entry]
    return list(dict.fromkeys(entry for entry in split if entry))


def _plain_metrics(result):
    return None if result is None else {name: float(value) for name, value in result.items()}


def _targets(dataset):
    """How many (user, item) pairs are tested, and a digest of them in any order."""
    if dataset.uid_field is None:
        return None
    users = dataset.id2token(dataset.uid_field, dataset.inter_feat[dataset.uid_field].numpy())
    items = dataset.id2token(dataset.iid_field, dataset.inter_feat[dataset.iid_field].numpy())
    pairs = sorted(zip(map(str, users), map(str, items)))
    digest = hashlib.sha256("\n".join("\t".join(pair) for pair in pairs).encode()).hexdigest()
    return {"count": len(pairs), "digest": digest}


def _warn_if_targets_differ(results):
    """Say so when models of one table were tested on different (user, item) pairs.

    RecBole's sequential data sets turn a sequence of n items into n - 1 samples before they split,
    so users of two items are tested by general models alone. Context-aware models have their own
    split.
    """
    digests = {result["test_targets"]["digest"] for result in results if result["test_targets"]}
    if len(digests) > 1:
        counts = ", ".join(
            f"{result['model']} {result['test_targets']['count']}"
            for result in results
            if result["test_targets"]
        )
        logging.getLogger().warning(
            "The models were not tested on the same targets (%s), so their figures are not "
            "comparable. Users with fewer than 3 interactions are one cause: "
            "--user_inter_num_interval=[3,inf) leaves them out.",
            counts,
        )
