"""Buckets of items by training frequency: which ones a configuration asks for."""

from collections.abc import Sequence
from typing import Any

from recbole_gr.errors import ConfigError


def check_edges(edges: Any) -> list[int]:
    """The smallest training frequency of each bucket, from ``eval_buckets``; empty where it is off.

    Raises:
        ConfigError: they do not ascend from 0.
    """
    if edges in (None, "off", []):
        return []
    if edges[0] != 0 or any(a >= b for a, b in zip(edges, edges[1:])):
        raise ConfigError(
            f"eval_buckets: {edges!r} must be ascending integers that start at 0, the least number "
            "of training interactions of each bucket, such as [0, 1, 6]; or None"
        )
    return list(edges)


def bucket_names(edges: Sequence[int]) -> list[str]:
    """``[0, 1, 6]`` -> ``["0", "1-5", "6+"]``."""
    ends = [*edges[1:], None]
    return [
        f"{a}+" if b is None else str(a) if b == a + 1 else f"{a}-{b - 1}"
        for a, b in zip(edges, ends)
    ]
