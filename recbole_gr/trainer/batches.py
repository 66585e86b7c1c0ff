"""Batches: on their way to the device, in parts, what draws them; the kernel of the optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from recbole.data.interaction import Interaction


def to_device(interaction: Interaction, device: torch.device) -> Interaction:
    """The batch on ``device``, without waiting for what the device has still to compute.

    RecBole's ``Interaction.to`` blocks: for each field the host waits until all steps before are
    done. Memory that is not pinned has been read when a copy that does not block returns, so the
    batch may be thrown away after it.
    """
    if device.type == "cpu":
        return interaction.to(device)
    fields = interaction.interaction.items()
    return Interaction({name: value.to(device, non_blocking=True) for name, value in fields})


def in_parts(interaction: Any, n_rows: int) -> Iterator[Any]:
    """A batch, RecBole's or a dict of its fields, as batches of ``n_rows`` rows each."""
    if isinstance(interaction, Interaction):
        yield from (interaction[at : at + n_rows] for at in range(0, len(interaction), n_rows))
        return
    parts = [value.split(n_rows) for value in interaction.values()]
    yield from (dict(zip(interaction, values)) for values in zip(*parts))


def fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let Adam and AdamW take one kernel for all operations of a parameter: RecBole leaves them to
    torch's default, one kernel an operation."""
    if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        for group in optimizer.param_groups:
            group["fused"] = True
    return optimizer


def generators_of(loader: Any) -> list[torch.Generator]:
    """The random generators that decide the batches of a training loader."""
    parts = ("general_dataloader", "kg_dataloader")  # of a knowledge-based loader
    loaders = [loader, *(getattr(loader, name, None) for name in parts)]
    return [part.generator for part in loaders if getattr(part, "generator", None) is not None]
