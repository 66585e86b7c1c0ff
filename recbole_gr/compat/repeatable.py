"""The same seed, the same numbers: on a CPU with several threads, too.

On a CPU torch adds up the gradient of ``x[rows]`` with several threads at once, in whatever order
they come, as soon as there is enough of it. Two runs of one seed then part within a few epochs, and
their SIDs with them. The order of torch's deterministic algorithms is fixed, and no slower here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import recbole.utils
import torch

_settings: Any = torch.utils.deterministic  # which is not annotated


def init_seed(seed: int, reproducibility: bool, device: torch.device | str) -> None:
    """Seed Python, NumPy and torch as RecBole does, and fix the order of sums on a CPU.

    Args:
        seed: of all of them.
        reproducibility: RecBole's key. True: equal seeds, machines and thread counts give equal
            numbers on a CPU. On GPUs it does what it does in RecBole: only cuDNN is told.
        device: where the run computes.
    """
    recbole.utils.init_seed(seed, reproducibility)
    on = reproducibility and torch.device(device).type == "cpu"
    # A caller's own setting, which raises where there is no fixed order, is left as it is.
    if on != torch.are_deterministic_algorithms_enabled() and not _is_strict():
        _fix_order(on)


@contextlib.contextmanager
def repeatable(device: torch.device | str) -> Iterator[None]:
    """Inside the block sums on a CPU have a fixed order; then all is as it was. GPUs: nothing."""
    if torch.device(device).type != "cpu" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    fills = _settings.fill_uninitialized_memory
    _fix_order(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        _settings.fill_uninitialized_memory = fills


def _is_strict() -> bool:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled and not torch.is_deterministic_algorithms_warn_only_enabled()


def _fix_order(on: bool) -> None:
    # What has no fixed order warns: a model of someone's own trains all the same.
    torch.use_deterministic_algorithms(on, warn_only=True)
    # Every empty tensor would be written once more, which helps to find faults in torch alone.
    _settings.fill_uninitialized_memory = False
