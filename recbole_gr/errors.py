"""Errors that a user can mend, and the search for the name the user meant."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Something the user gave (a key, a file, a name) cannot be used.

    The message names the file or the key, says what is wrong with it and what would be right. It is
    raised before any training starts, and the command line prints it without a traceback.
    """


class Diverged(ConfigError):
    """A training whose loss, weights or scores are no numbers any more: its settings are to blame,
    which only shows in training."""


class ProcessKilled(RuntimeError):
    """A process of a run was ended by a signal that it could not answer."""


class MachineLost(RuntimeError):
    """Another machine of a run was cut off, or its processes were killed.

    Attributes:
        is_cut (bool): the connection gave no answer any more, rather than being closed.
    """

    is_cut = False


class ModelsFailed(RuntimeError):
    """Some models of a run failed; the others finished and are in the report.

    Attributes:
        table (str): the comparison of those that finished, as markdown.
    """

    def __init__(self, message: str, table: str):
        super().__init__(message)
        self.table = table


def nearest(name: object, known: Iterable[str], n: int = 1) -> list[str]:
    """The names in `known` most like `name`, best first, upper and lower case being the same.

    Args:
        name (str): what the user wrote.
        known (Iterable[str]): the names that exist.
        n (int): how many to return at most.

    Returns:
        list[str]: up to `n` names, empty where nothing is similar.
    """
    by_lower: dict[str, str] = {}
    for candidate in sorted(known):
        by_lower.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=n, cutoff=0.6)
    return [by_lower[match] for match in close]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`", did you mean 'topk'?"`, or an empty string where no known name is similar."""
    close = nearest(name, known)
    return f", did you mean '{close[0]}'?" if close else ""
