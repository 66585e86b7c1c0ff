"""A search from its parameter file to its table."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recbole_gr.config.devices import visible_gpus_kept
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.data.sources import FILE_KEYS
from recbole_gr.errors import ConfigError
from recbole_gr.search import two_stage as two_stages
from recbole_gr.search.journal import StoredStudy, open_journal
from recbole_gr.search.report import write_search_report
from recbole_gr.search.samplers import check_algorithm, grid, make_sampler
from recbole_gr.search.space import Parameter, read_space
from recbole_gr.search.study import ALL, Best, run_study
from recbole_gr.search.task import Task, check_task, make_task
from recbole_gr.search.trial import TOKENIZERS, TRIALS, Record, fit_tokenizer, run_trial
from recbole_gr.search.workers import Objective, choose_workers
from recbole_gr.storage.hashes import sha256
from recbole_gr.storage.manifest import data_hashes
from recbole_gr.terminal.log import say

MAX_TOKENIZERS = 20  # where they are drawn


def search(
    params_file: str | os.PathLike,
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
    algo: str = "exhaustive",
    max_evals: int | None = None,
    search_seed: int = 2020,
    two_stage: bool = False,
    keep_tokenizers: int = 3,
    max_tokenizers: int | None = None,
    tokenizer_criterion: str = "collision",
    tool: str = "auto",
    jobs: int | None = None,
    parallel: int = 1,
    output_file: str | os.PathLike | None = None,
    keep_checkpoints: bool = False,
    objective: Objective = run_trial,
    tokenizer_objective: Objective = fit_tokenizer,
) -> dict[str, Any]:
    """Search for the settings of a model that score best on the validation targets.

    Every trial is stored when it ends, one that failed with its message. The same call goes on
    where one was stopped, with `max_evals` as high as before or higher; trials that have ended are
    not run again.

    Args:
        params_file: in RecBole's form, see :func:`recbole_gr.search.space.read_space`.
        model: one name, of ours or RecBole's; None takes the key `model`.
        dataset, config_file_list, config_dict, cmd_args: as for :func:`recbole_gr.run_recbole_gr`.
        algo: `exhaustive`, `random`, or `bayes` (`tpe`, Optuna's).
        max_evals: most trials; None is all of them with `exhaustive`, otherwise 100.
        search_seed: of the parameters that are proposed; `seed` is that of each training.
        two_stage: first fit tokenizers with the parameters that belong to them, then search the
            others on the SIDs of the best `keep_tokenizers` alone.
        max_tokenizers: most of the first stage; None is all with `exhaustive`, otherwise 20.
        tokenizer_criterion: figure of the SID report that ranks tokenizers, collapsed ones being
            out: `collision`, `distinct`, `gini`, `utilisation`, `perplexity`, `sc`, `sc_content`,
            `pd` or `neighbours`.
        tool: `ray` runs trials on a cluster by Ray, `optuna` one after another in this process,
            `auto` by Ray where it is installed.
        jobs: trials at a time by Ray, at most; None is as many as there is room for.
        parallel: with `bayes`, trials that are proposed together.
        output_file: of the trials; None takes `saved/search/<model>-<dataset>-<params_file>.jsonl`.
            The tables lie beside it.
        keep_checkpoints: of all trials; otherwise of the best one alone.
        objective, tokenizer_objective: what a trial is; takes a :class:`Job`, returns its record.

    Returns:
        dict: `best` (record of the best trial, None where all failed), `trials` and `tokenizers`
        (records in their order), `command` (that trains the best), `table` (markdown) and `files`.

    Raises:
        ConfigError: something given cannot be used, or the file holds another search; nothing is
            trained then.
    """
    algo = check_algorithm(algo)
    criterion = two_stages.check_criterion(tokenizer_criterion)
    counts = {"max_evals": max_evals, "keep_tokenizers": keep_tokenizers, "parallel": parallel}
    _check_counts({**counts, "max_tokenizers": max_tokenizers, "jobs": jobs}, least=1)
    _check_counts({"search_seed": search_seed}, least=0)
    space = read_space(params_file)
    given = UserSettings.read(config_file_list, config_dict, cmd_args)
    task = make_task(space, model, dataset, given)
    with visible_gpus_kept():  # a Ray that starts here is to see all
        config = check_task(task, space, params_file)
    own, rest = two_stages.divided(space, task, config) if two_stage else ([], space)
    if algo == "exhaustive":  # before anything is fitted
        try:
            grid(space)
        except ConfigError as error:
            raise ConfigError(f"{params_file}, {error}") from error
    workers = choose_workers(tool, jobs)
    counted = {"keep_tokenizers": keep_tokenizers, "max_tokenizers": max_tokenizers}
    header = {
        "model": task.model,
        "dataset": task.dataset,
        "algo": algo,
        "search_seed": search_seed,
        "settings": task.settings_that_count(),
        "data": {**data_hashes(config), **_searched_files(space)},
        "parameters": {parameter.name: parameter.described() for parameter in space},
        "two_stage": {**counted, "criterion": criterion} if two_stage else None,
    }
    bigger = bool(config["valid_metric_bigger"])
    file = Path(output_file or _default_file(task, params_file))
    task = replace(task, checkpoints=str(file.with_suffix("")))
    best = Best(bigger, not keep_checkpoints, task.checkpoints)
    with open_journal(file) as storage:
        study = StoredStudy(storage, file, TRIALS, header, bigger=bigger)
        tokenizers: list[Record] = []
        if two_stage:
            most = max_tokenizers or (None if algo == "exhaustive" else MAX_TOKENIZERS)
            listed = algo if algo == "exhaustive" else "random"  # no scores are waited for
            smaller = two_stages.CRITERIA[criterion]
            tokenizers = run_study(
                StoredStudy(storage, file, TOKENIZERS, header, criterion, not smaller),
                own,
                make_sampler(listed, own, most, search_seed, not smaller),
                partial(workers, tokenizer_objective),
                task,
            )
            chosen = two_stages.choose_tokenizers(tokenizers, keep_tokenizers, criterion)
            say("Tokenizers that go on: %s", [record["params"] for record in chosen])
            rest = two_stages.of_tokenizers(chosen, rest)
        for record in study.records:
            best(record)
        trials = run_study(
            study,
            rest,
            make_sampler(algo, rest, max_evals, search_seed, bigger),
            partial(workers, objective),
            task,
            together=parallel if algo == "bayes" else ALL,
            ended=best,
        )
    metric = str(config["valid_metric"]).lower()
    outcome = {"best": best.record, "trials": trials, "tokenizers": tokenizers}
    report = write_search_report(file, task, outcome, best.key, metric, criterion, header)
    return {**outcome, **report}


def _check_counts(counts: dict[str, Any], least: int) -> None:
    for name, value in counts.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            raise ConfigError(f"--{name}={value}: it must be an integer of at least {least}")


def _searched_files(space: list[Parameter]) -> dict[str, str | None]:
    """sha256 of the files among the values of parameters, such as `sid_file choice [a,b]`."""
    searched = [p for p in space if p.name in FILE_KEYS and p.kind == "choice"]
    files = [(p.name, value) for p in searched for value in p.grid() if isinstance(value, str)]
    return {f"{name} {path}": sha256(path) for name, path in files}


def _default_file(task: Task, params_file: str | os.PathLike) -> Path:
    name = f"{task.model.replace(':', '-')}-{task.dataset}-{Path(params_file).stem}.jsonl"
    return Path("saved") / "search" / name
