"""What a run over periods can be told of before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recbole.utils import ModelType

from recbole_gr import registry
from recbole_gr.continual.given import FILES, given_table, sid_files
from recbole_gr.continual.methods import FINETUNE, FROZEN, RETRAIN
from recbole_gr.data import create_dataset
from recbole_gr.data.checks import check_catalogue
from recbole_gr.data.vector_files import collaborative_vectors
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_gr.continual.runner import ContinualRun
    from recbole_gr.tokenizer.base import Tokenizer


def check_models(recommender: str, baselines: Sequence[str]) -> None:
    """See that these models can run over periods.

    Raises:
        ConfigError: naming the model and what can stand there.
    """
    if not _trains_in_a_period(registry.get_model(recommender)):
        able = registry.models_where(_trains_in_a_period)
        raise ConfigError(
            f"continual_model: {recommender} is no generative recommender; take "
            f"{' or '.join(able)}, and put RecBole's models beside DACT: --model=DACT,SASRec"
        )
    fusion = registry.get_model("Fusion")  # trains nothing, and its members are of one period
    for name in baselines:
        model = registry.get_model(name)
        generative = registry.is_generative(model)
        instead = f", and a generative one as --continual.model={name}" if generative else ""
        if generative or issubclass(model, fusion) or model.type != ModelType.SEQUENTIAL:
            raise ConfigError(
                f"{name} cannot stand beside DACT: give RecBole's sequential models there{instead}"
            )


def check_periods(run: ContinualRun) -> tuple[int, int]:
    """Numbers of periods to run and of the data, after a look at all data, settings and files.

    Raises:
        ConfigError: a key, file or period that cannot be used; names it.
    """
    config = run.config_of(0, run.recommender)
    for name in run.baselines:
        run.config_of(0, name)
    dataset = create_dataset(config)
    last, cuts = run.config["continual_last"], run.config["continual_cuts"]
    if dataset.n_periods < 2:
        key = "continual_field" if cuts is None else "continual_cuts"
        raise ConfigError(
            f"{key}: {run.config[key]} makes one period of '{config['dataset']}'; a run over "
            "periods needs two at least, such as continual_cuts=[0.6,1.0]"
        )
    n_periods = dataset.n_periods if last is None else last + 1
    if not 1 < n_periods <= dataset.n_periods:
        raise ConfigError(
            f"continual_last: {last} is not one of 1 to {dataset.n_periods - 1}, the periods "
            f"of '{config['dataset']}' after the first"
        )
    check_catalogue(config, dataset)
    check_targets(run, dataset, n_periods)
    named = sid_files(run.config)
    cf_files = run.config["continual_cf_files"]
    lists = {"continual_sid_files": named.get(FILES), "continual_cf_files": cf_files}
    for key, files in lists.items():
        if files and len(files) < n_periods:
            raise ConfigError(
                f"{key}: {len(files)} files for {n_periods} periods; give one for each, or "
                f"stop earlier with --continual.last={max(1, len(files) - 1)}"
            )
    for period, path in enumerate(cf_files or ()):
        _check_file(run, "continual_cf_files", path, period)
    for files in named.values():
        for period, path in enumerate(files[: dataset.n_periods]):
            _check_file(run, "continual_sid_files", path, period)
    learned = [chain for chain in run.chains.values() if not chain.files]
    if learned and run.config["continual_start_sids"]:
        _check_file(run, "continual_start_sids", run.config["continual_start_sids"], 0)
    if learned and run.config["continual_start_tokenizer"]:
        _check_tokenizer(learned[0].tokenizer_class, run.config["continual_start_tokenizer"])
    return n_periods, dataset.n_periods


def check_targets(run: ContinualRun, dataset: Dataset, n_periods: int) -> None:
    """See that every period has the targets that its methods train, validate and test on.

    Raises:
        ConfigError: naming the period, its targets and what needs others.
    """
    ways = sorted({method.recommender for method in run.methods} - {FROZEN})
    files = run.config["continual_cf_files"] or ()
    key = "continual_cuts" if run.config["continual_field"] is None else "continual_field"
    for period, counts in enumerate(dataset.target_counts[:n_periods]):
        train, valid, test = (int(count) for count in counts)
        learns = train > 0 and valid > 0
        if period:
            # Who starts anew has the targets of the periods before too.
            able = {FINETUNE: learns, RETRAIN: valid > 0}
            lack = [f"recommender {way}" for way in ways if not able[way]]
            if not learns and period >= len(files):  # as collaborative vectors are trained on
                lack += [f"tokenizer {how}" for how, chain in run.chains.items() if chain.follows]
        else:
            lack = [] if learns else ["any method"]
        if lack or not test:
            wanted = "training and validation" if lack else "test"
            stays = ", or what stays frozen alone" if period and test else ""
            raise ConfigError(
                f"{key}: period {period} ({dataset.period_names[period]}) of "
                f"'{run.config['dataset']}' has {train} training, {valid} validation and {test} "
                f"test targets, and {', '.join(lack) or 'a test'} needs {wanted} targets. A user's "
                "last interaction in a period is for test, the one before for validation, those "
                f"before train: give other periods{stays}"
            )


def _check_tokenizer(tokenizer_class: type[Tokenizer], path: str) -> None:
    if not os.path.isfile(path):
        raise ConfigError(f"continual_start_tokenizer: there is no file '{path}'")
    tokenizer_class.load(path)


def _check_file(run: ContinualRun, key: str, path: str, period: int) -> None:
    """Read a file of a period as that period will."""
    overrides = {"cf_file": path} if key == "continual_cf_files" else {}
    config = run.config_of(period, run.recommender, **overrides)
    dataset = create_dataset(config)
    if overrides:
        collaborative_vectors(config, dataset)
        return
    try:
        given_table(run.config, path, [str(t) for t in dataset.field2id_token[dataset.iid_field]])
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _trains_in_a_period(model_class: type) -> bool:
    return registry.is_generative(model_class) and not registry.spans_periods(model_class)
