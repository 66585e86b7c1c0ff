"""Samplers of parameters: all in turn, random ones, or those that Optuna's TPE expects most of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

from numpy.random import SeedSequence

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.space import Parameter, Params

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ALGORITHMS = ("exhaustive", "random", "bayes")
ALIASES = {"tpe": "bayes"}
MAX_EVALS = 100  # RecBole's
REPEATS = 1000  # draws of parameters that were drawn before, after which a space is exhausted

#: Parameters of the next trials, at most so many, from all trials before them; none at the end.
Sampler = Callable[[list["FrozenTrial"], int], list[Params]]


def check_algorithm(name: str) -> str:
    """One of `ALGORITHMS`; a ConfigError where it is none, or where Optuna is not installed."""
    name = ALIASES.get(name, name)
    if name not in ALGORITHMS:
        raise ConfigError(
            f"--algo={name}: none of {', '.join(ALGORITHMS)}{did_you_mean(name, ALGORITHMS)}"
        )
    try:
        import optuna.storages.journal  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'a search needs Optuna ({error}): pip install "recbole_gr[search]"'
        ) from error
    return name


def make_sampler(
    algo: str, space: list[Parameter], max_trials: int | None, seed: int, bigger: bool
) -> Sampler:
    """What proposes parameters; a function of `seed` and of the trials that have ended.

    Args:
        algo: one of `ALGORITHMS`.
        space: what is searched.
        max_trials: most of them; None takes all of a grid, otherwise `MAX_EVALS`.
        seed: of the proposals.
        bigger: whether a larger score is better.
    """
    n = MAX_EVALS if max_trials is None else max_trials
    if algo == "bayes":
        return lambda ended, most: tpe(space, ended, min(most, n - len(ended)), seed, bigger)
    listed = grid(space)[:max_trials] if algo == "exhaustive" else draws(space, n, seed)
    return lambda ended, most: listed[len(ended) : len(ended) + most]


def grid(space: list[Parameter]) -> list[Params]:
    """Every combination, the last parameter changing first.

    Optuna's `GridSampler` shuffles them, so that a search of the first `max_evals` is a random one,
    and cannot be asked and told: the last trial ends in a RuntimeError (Optuna 5.0, its docs too).
    """
    names = [parameter.name for parameter in space]
    return [dict(zip(names, values)) for values in product(*(p.grid() for p in space))]


def draws(space: list[Parameter], n: int, seed: int) -> list[Params]:
    """The first `n` of an endless row of different random combinations; fewer where there are no
    more. A longer row begins as a shorter one.

    Optuna's `RandomSampler` draws with replacement (of a grid of 6, 6 draws held 4 different ones),
    so what it repeats is left out here.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it tells of the study below
    sampler = optuna.samplers.RandomSampler(seed=_stream(seed, 0))
    study = optuna.create_study(sampler=sampler)
    drawn: dict[str, Params] = {}
    repeats = 0
    while len(drawn) < n and repeats < REPEATS:
        params = _ask(study, space)
        repeats = repeats + 1 if repr(params) in drawn else 0
        drawn.setdefault(repr(params), params)
    return list(drawn.values())


def tpe(
    space: list[Parameter], ended: list[FrozenTrial], n: int, seed: int, bigger: bool
) -> list[Params]:
    """`n` proposals of Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), RecBole's
    `bayes`.

    They are asked of a study in memory: the stored one would keep what is asked as running, and
    Optuna takes no running trial up again where a search was killed. A sampler's random numbers are
    not stored either (one of the same seed begins with the same trials again), so each call has its
    own, by the seed and the number of trials before it.
    """
    import optuna

    sampler = optuna.samplers.TPESampler(seed=_stream(seed, len(ended)))
    direction: Any = "maximize" if bigger else "minimize"
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(ended)
    return [_ask(study, space) for _ in range(n)]


def _ask(study: Study, space: list[Parameter]) -> Params:
    asked = study.ask({parameter.name: parameter.distribution for parameter in space}).params
    return {parameter.name: parameter.exact(asked[parameter.name]) for parameter in space}


def _stream(seed: int, number: int) -> int:
    """A seed of Optuna's (32 bits) that no other seed and number share but by chance."""
    return int(SeedSequence([seed, number]).generate_state(1)[0])
