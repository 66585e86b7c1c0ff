"""Bars of progress: in a terminal alone, and gone when they are done."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

_wanted = True


def is_terminal() -> bool:
    """Whether somebody watches standard error: a terminal, or a notebook."""
    stream = sys.stderr
    if type(stream).__module__.partition(".")[0] == "ipykernel":
        return True
    return bool(stream) and hasattr(stream, "isatty") and stream.isatty()


def want(wanted: bool) -> None:
    """Say whether bars may be drawn at all; :func:`recbole_gr.terminal.log.show` does."""
    global _wanted
    _wanted = wanted


def are_seen() -> bool:
    """Whether bars are of use: somebody watches, and did not ask for silence."""
    return is_terminal() and _wanted


class Bar(tqdm):
    """tqdm's bar, which leaves no line behind; nothing at all where :func:`are_seen` says no.

    A redirected standard error would get a line for each of its updates.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        if not are_seen():
            kwargs["disable"] = True
        ours = {"leave": False, "dynamic_ncols": "ncols" not in kwargs}
        super().__init__(*args, **{**ours, **kwargs})
