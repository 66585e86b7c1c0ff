"""One call from settings to results, for one model or for several on the same data."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.distributed import processes
from recbole_gr.distributed.launch import run_processes
from recbole_gr.errors import ConfigError, Diverged, ModelsFailed
from recbole_gr.pages.run import write_run_page
from recbole_gr.pages.sids import write_page_of_walks
from recbole_gr.report import comparison as report
from recbole_gr.report.bucket_table import bucket_table
from recbole_gr.run.model import run_model
from recbole_gr.storage.manifest import write_manifest
from recbole_gr.storage.run_files import report_folder


def run_recbole_gr(
    model: str | type | Sequence[str | type] | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
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
        `test_result_without_history` (the metrics of targets' places with the items of each user's
        history left out of the ranking; None where not the whole catalogue is ranked), `test_ranks`
        (these places and more, see :meth:`recbole_gr.trainer.ranks.TargetRanks.arrays`, or None),
        `test_interval` (`users`, and by metric the ends of its 95 % interval over them; None where
        nothing is ranked), `test_targets` (number, digest, tied in time), `best_epoch` (from 0),
        `epochs_run`,
        `seconds_per_epoch` (training), `seconds_total`, `parameters` (trainable),
        `peak_memory_bytes`, `checkpoint`, `example` (arguments that `recbole-gr recommend` takes
        for it, or None), `sid` (quality of the semantic IDs or None),
        `sid_digest` (sha256 of the SIDs or None), `log`, `config`, `valid_curve` (epoch and score
        of each validation), `epoch_figures` (what a trainer notes of each epoch, or None),
        `redistribution` (how single items are spread over codes, or None), `walk` (SIDs of before
        and after, the arrays of a :class:`~recbole_gr.pages.walk.Walk`, where a model gives items
        others than it was given, or None), `table` (markdown), `bucket_table`, `files`. For several
        `results` (a list of such), `table`, `bucket_table` and `files` (paths by "md", "csv",
        "json", "png", "manifest").

        With several processes (`nproc`, `world_size`, torchrun) None on all ranks but 0.

    Raises:
        ConfigError: settings or data cannot be used. All models' settings are checked before the
            first one is trained.
        ModelsFailed: one of several models failed; the others have run and are in the report.
    """
    given = UserSettings.read(config_file_list, config_dict, cmd_args)
    request = (model, dataset, given, saved)
    return run_processes(_run, request, given.settings, partial(_check, model, dataset, given))


def _check(model: Any, dataset: str | None, given: UserSettings) -> None:
    """Raise a ConfigError for settings that no process could use, before any is started."""
    models = _requested_models(model, given)
    known = [*models, given.get("continual_model") or "TIGER"]
    for name in models:
        Config(name, dataset, other_models=known, given=given)


def _run(
    model: Any, dataset: str | None, given: UserSettings, saved: bool
) -> dict[str, Any] | None:
    """What :func:`run_recbole_gr` does, in each process."""
    models = _requested_models(model, given)
    if any(registry.spans_periods(registry.get_model(name)) for name in models):
        from recbole_gr.continual.runner import ContinualRun

        if given.get("continual_period") is None:  # else an ordinary run
            return ContinualRun(models, dataset, given).run()
    configs = [Config(name, dataset, other_models=models, given=given) for name in models]
    if len(configs) > 1 and configs[0]["resume"]:
        raise ConfigError("resume: a checkpoint is of one model; give --model one name.")
    _check_inputs(configs)
    if not processes.is_rank_zero():
        return _run_all(configs, saved, None)
    with report_folder(configs) as folder:
        return _run_all(configs, saved, folder)


def _run_all(configs: Sequence[Config], saved: bool, folder: Path | None) -> dict[str, Any] | None:
    """Train and test the models one by one; rank 0 reports in `folder`."""
    results, failures, sid_page = [], [], None
    for config in configs:
        try:
            results.append(run_model(config, saved=saved))
        except Exception as error:
            unusable = isinstance(error, ConfigError) and not isinstance(error, Diverged)
            if len(configs) == 1 or (unusable and not results):
                raise  # nothing is trained yet that could be lost
            if isinstance(error, ConfigError):
                logging.getLogger().error("%s failed: %s", config["model"], error)
            else:
                logging.getLogger().exception("%s failed", config["model"])
            failures.append((config["model"], error))
            if processes.world_size() > 1:
                break  # the others may not have failed, and would wait for this one
            continue
        if folder is None:  # not rank 0
            continue
        # After each model: what is finished stays, whatever happens to the rest.
        files = report.write_report(results, folder)
        files["manifest"] = write_manifest(results, folder, saved)
        if results[-1].get("walk"):
            sid_page = write_page_of_walks(folder)
        files |= {"sids": str(sid_page)} if sid_page else {}
        files["html"] = str(write_run_page(folder))

    if failures:
        if not results or not processes.is_rank_zero():
            raise failures[0][1]
        names = ", ".join(f"{name} ({error})" for name, error in failures)
        raise ModelsFailed(
            f"Failed: {names}. The results of the other models are in {files['md']}.",
            report.markdown_table(results),
        ) from failures[0][1]
    if not processes.is_rank_zero():
        return None
    _warn_if_targets_differ(results)
    tables = {"table": report.markdown_table(results), "bucket_table": bucket_table(results)}
    logging.getLogger().info("Results in %s", folder)
    if len(results) == 1:
        return {**results[0], **tables, "files": files}
    return {"results": results, **tables, "files": files}


def _check_inputs(configs: Sequence[Config]) -> None:
    """Raise a ConfigError for input that cannot be used, before the first model is trained.

    The first model meets its own input before it trains. A generative model further back makes its
    SIDs here, which are kept for it, as a bad SID or content file shows only against the items.
    """
    from recbole_gr.data.checks import check_inter_files
    from recbole_gr.data.prepare import prepared_data
    from recbole_gr.pipeline.item_sids import item_sids
    from recbole_gr.trainer.weights import load_checkpoint_of

    for config in configs:
        check_inter_files(config)
        if config["resume"]:
            load_checkpoint_of(config, config["resume"], map_location="cpu")
    for config in configs[1:]:
        if registry.is_generative(config.model_class):
            item_sids(config, prepared_data(config)[1][0]._dataset)


def _requested_models(
    model: str | type | Sequence[str | type] | None, given: UserSettings
) -> list[str | type]:
    """The models of a run as a list of names or classes."""
    model = given.get("model") if model is None else model
    if not model:
        raise ConfigError("No model is given: add --model=TIGER, for example.")
    models = [model] if isinstance(model, (str, type)) else list(model)
    split: list[str | type] = []
    for entry in models:
        split += [name.strip() for name in entry.split(",")] if isinstance(entry, str) else [entry]
    return list(dict.fromkeys(entry for entry in split if entry))


def _warn_if_targets_differ(results: list[dict[str, Any]]) -> None:
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
