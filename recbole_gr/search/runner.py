"""A search from its parameter file to its table."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config.given import Given
from recbole_gr.data.sources import FILE_KEYS
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search import stages
from recbole_gr.search.algorithms import Listed, algorithm, check_algorithm
from recbole_gr.search.report import write_search_report
from recbole_gr.search.space import Parameter, Params, draws, grid, read_space
from recbole_gr.search.store import TOKENIZER, TRIAL, open_store, settings_that_count
from recbole_gr.search.trial import Task, fit_tokenizer, run_trial
from recbole_gr.search.workers import Run, choose_workers
from recbole_gr.storage.hashes import sha256
from recbole_gr.storage.manifest import data_hashes
from recbole_gr.terminal.log import say

MAX_TOKENIZERS = 20  # where they are drawn
ALL = 1 << 40  # proposed at once where scores make no difference


@dataclass(frozen=True)
class Tokenizers:
    """How the first of two stages goes: see `search`."""

    keep_tokenizers: int
    max_tokenizers: int | None
    criterion: str

    def proposed(self, space: list[Parameter], algo: str, seed: int) -> list[Params]:
        """The tokenizers to fit; no scores of theirs are waited for."""
        if algo == "exhaustive":
            return grid(space)[: self.max_tokenizers]
        n = MAX_TOKENIZERS if self.max_tokenizers is None else self.max_tokenizers
        return draws(space, n, seed)


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
    parallel: int = 1,
    output_file: str | os.PathLike | None = None,
    keep_checkpoints: bool = False,
    objective: Run = run_trial,
    tokenizer_objective: Run = fit_tokenizer,
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
        tool: `ray` runs trials by Ray Tune, `optuna` one after another in this process, `auto` by
            Ray where it is installed whole.
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
    two = Tokenizers(keep_tokenizers, max_tokenizers, stages.check_criterion(tokenizer_criterion))
    counts = {"max_evals": max_evals, "keep_tokenizers": keep_tokenizers, "parallel": parallel}
    _check_counts({**counts, "max_tokenizers": max_tokenizers}, least=1)
    _check_counts({"search_seed": search_seed}, least=0)
    space = read_space(params_file)
    task = make_task(space, model, dataset, config_file_list, config_dict, cmd_args)
    config = check_task(task, space, params_file)
    own, rest = _divided(space, task, config) if two_stage else ([], space)
    if algo == "exhaustive":  # before anything is fitted
        try:
            grid(space)
        except ConfigError as error:
            raise ConfigError(f"{params_file}, {error}") from error
    workers = choose_workers(tool)
    header = {
        "model": task.model,
        "dataset": task.dataset,
        "algo": algo,
        "search_seed": search_seed,
        "settings": _settings_that_count(task),
        "data": {**data_hashes(config), **_searched_files(space)},
        "parameters": {parameter.name: parameter.described() for parameter in space},
        "two_stage": asdict(two) if two_stage else None,
    }
    bigger = bool(config["valid_metric_bigger"])
    file = Path(output_file or _default_file(task, params_file))
    task = replace(task, checkpoints=str(file.with_suffix("")))
    best = stages.Best(bigger, not keep_checkpoints, task.checkpoints)
    with open_store(file, header) as store:
        tokenizers, complete = [], dict
        if two_stage:
            drawn = two.proposed(own, algo, search_seed)
            tokenizers = stages.search_stage(
                TOKENIZER, Listed(drawn), store, tokenizer_objective, workers, task, ALL
            )
            chosen = stages.choose_tokenizers(tokenizers, two.keep_tokenizers, two.criterion)
            kept = [record["params"] for record in chosen]
            say("Tokenizers that go on: %s", kept)
            rest, complete = stages.of_tokenizers(chosen, rest)
        for _, record in sorted(store.of_stage(TRIAL).items()):
            best(record)
        proposals = algorithm(algo, rest, max_evals, search_seed, bigger)
        together = parallel if algo == "bayes" else ALL
        trials = stages.search_stage(
            TRIAL, proposals, store, objective, workers, task, together, best, complete
        )
        metric = str(config["valid_metric"]).lower()
        outcome = {"best": best.record, "trials": trials, "tokenizers": tokenizers}
        report = write_search_report(file, task, outcome, best.key, metric, two.criterion)
        return {**outcome, **report}


def _divided(space: list[Parameter], task: Task, config: Any) -> tuple[list[Parameter], ...]:
    """The parameters of the tokenizer and the others, where a first stage makes sense."""
    if not registry.is_generative(config.model_class):
        raise ConfigError(f"--two_stage: {task.model} has no SIDs; leave --two_stage out")
    if config["sid_file"]:
        raise ConfigError("--two_stage: sid_file gives the SIDs; leave one of both out")
    return stages.two_stages(space, stages.tokenizer_keys(task.tokenizers))


def make_task(
    space: list[Parameter],
    model: str | None,
    dataset: str | None,
    config_file_list: list[str] | None,
    config_dict: dict[str, Any] | None,
    cmd_args: list[str] | None,
) -> Task:
    """What all trials have in common.

    Raises:
        ConfigError: no model, several, or one that a search cannot score.
    """
    given = Given.read(config_file_list, config_dict, cmd_args)
    settings = given.direct
    model, dataset = model or given.get("model"), dataset or given.get("dataset")
    if not model or not dataset:
        missing, example = ("model", "TIGER") if not model else ("dataset", "ml-100k")
        raise ConfigError(f"No {missing} is given: add --{missing}={example}, for example.")
    if "," in model:
        raise ConfigError(f"--model={model}: a search is for one model; search for each alone")
    if registry.spans_periods(registry.get_model(model)):
        raise ConfigError(f"--model={model} runs over periods and has no single validation score")
    for key in ("model", "dataset"):
        settings.pop(key, None)
    both = [p for p in space if p.name in settings or p.name in ("model", "dataset", "resume")]
    if both:
        raise ConfigError(
            f"'{both[0].name}' is a parameter (line {both[0].line} of the file) and given or fixed "
            "beside it: leave one of both out"
        )
    searched = {parameter.name: parameter for parameter in space}
    names = searched["tokenizer"].grid() if "tokenizer" in searched else []
    names = names or [given.get("tokenizer")] if given.get("tokenizer") else names
    return Task(model, str(dataset), tuple(given.files), settings, tuple(map(str, names)))


def check_task(task: Task, space: list[Parameter], params_file: str | os.PathLike) -> Any:
    """The configuration without parameters, once all keys are known to be some.

    Raises:
        ConfigError: settings that no trial could run with, or an unknown parameter (file, line).
    """
    from recbole_gr import registry
    from recbole_gr.config.defaults import default_settings
    from recbole_gr.config.known_keys import RUN_KEYS

    model_class = registry.get_model(task.model)
    known = set(RUN_KEYS)
    for tokenizer in task.tokenizers or (None,):
        known |= default_settings(model_class, task.dataset, tokenizer).known
    for parameter in space:
        if parameter.name not in known:
            raise ConfigError(
                f"{params_file}, line {parameter.line}: Unknown key '{parameter.name}'"
                f"{did_you_mean(parameter.name, known)}"
            )
    return task.config({"tokenizer": task.tokenizers[0]} if task.tokenizers else {})


def _check_counts(counts: dict[str, Any], least: int) -> None:
    for name, value in counts.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            raise ConfigError(f"--{name}={value}: it must be an integer of at least {least}")


def _settings_that_count(task: Task) -> dict[str, Any]:
    from recbole_gr.storage.checkpoint import plain

    given = Given.read(list(task.files), task.settings)
    return plain(settings_that_count(given.settings))


def _searched_files(space: list[Parameter]) -> dict[str, str | None]:
    """sha256 of the files among the values of parameters, such as `sid_file choice [a,b]`."""
    return {
        f"{parameter.name} {path}": sha256(path)
        for parameter in space
        for path in parameter.values
        if parameter.name in FILE_KEYS and isinstance(path, str)
    }


def _default_file(task: Task, params_file: str | os.PathLike) -> Path:
    name = f"{task.model.replace(':', '-')}-{task.dataset}-{Path(params_file).stem}.jsonl"
    return Path("saved") / "search" / name
