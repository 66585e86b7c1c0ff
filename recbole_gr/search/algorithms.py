"""Which parameters to try next: all, random ones, or those that a model of the scores expects most
of."""

import math
from typing import Any

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.space import Parameter, Params, draws, grid

ALGORITHMS = ("exhaustive", "random", "bayes")
ALIASES = {"tpe": "bayes"}
MAX_EVALS = 100  # RecBole's


def check_algorithm(name: str) -> str:
    """One of `ALGORITHMS`; a ConfigError where it is none, or needs what is not installed."""
    name = ALIASES.get(name, name)
    if name not in ALGORITHMS:
        raise ConfigError(
            f"--algo={name}: none of {', '.join(ALGORITHMS)}{did_you_mean(name, ALGORITHMS)}"
        )
    if name == "bayes":
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                '--algo=bayes needs Optuna: pip install "recbole_gr[search]", or take --algo=random'
            ) from error
    return name


class Listed:
    """Parameters that do not depend on scores: a grid in its order, or random ones by a seed."""

    def __init__(self, params: list[Params]):
        self.left = params

    def ask(self, n: int) -> list[Params]:
        """The next `n`; fewer where there are no more."""
        asked, self.left = self.left[:n], self.left[n:]
        return asked

    def tell(self, scores: list[float | None]) -> None:
        """Scores make no difference."""


class TreeParzen:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), RecBole's `bayes`.

    The same seed and scores give the same parameters, so a search goes on by asking again for what
    was asked and telling what came out.
    """

    def __init__(self, space: list[Parameter], n: int, seed: int, bigger: bool):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.left = space, n
        self.study = optuna.create_study(
            direction="maximize" if bigger else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
        self.failed = optuna.trial.TrialState.FAIL
        self.open: list[Any] = []

    def ask(self, n: int) -> list[Params]:
        """As of `Listed`; the scores of what was asked before must have been told."""
        n = min(n, self.left)
        self.left -= n
        self.open = [self.study.ask() for _ in range(n)]
        return [{p.name: self._value(trial, p) for p in self.space} for trial in self.open]

    def tell(self, scores: list[float | None]) -> None:
        """The scores of what was asked last, in its order; None of a trial that failed."""
        for trial, score in zip(self.open, scores, strict=True):
            if score is None:
                self.study.tell(trial, state=self.failed)
            else:
                self.study.tell(trial, score)

    def _value(self, trial: Any, parameter: Parameter) -> Any:
        name = parameter.name
        if parameter.kind == "choice":  # by their places, as a value may be a list
            places = list(range(len(parameter.values)))
            return parameter.values[trial.suggest_categorical(name, places)]
        if parameter.kind == "quniform":
            return parameter.step_value(trial.suggest_int(name, 0, parameter.n_steps() - 1))
        if parameter.kind == "loguniform":
            return math.exp(trial.suggest_float(name, parameter.low, parameter.high))
        return trial.suggest_float(name, parameter.low, parameter.high)


def algorithm(
    name: str, space: list[Parameter], max_evals: int | None, seed: int, bigger: bool
) -> Listed | TreeParzen:
    """What proposes parameters.

    Args:
        name: one of `ALGORITHMS`.
        space: what is searched; empty gives one trial without any.
        max_evals: most trials; None takes all of a grid, otherwise `MAX_EVALS`.
        seed: of the proposals.
        bigger: whether a larger score is better.
    """
    if name == "exhaustive" or not space:
        return Listed(grid(space)[:max_evals])
    n = MAX_EVALS if max_evals is None else max_evals
    if name == "random":
        return Listed(draws(space, n, seed))
    return TreeParzen(space, n, seed, bigger)
