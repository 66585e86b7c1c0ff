"""The inputs of a tokenizer's fit, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from recbole_gr.errors import ConfigError

#: What tokenizers learn from beside content, by name.
Signals: TypeAlias = Mapping[str, torch.Tensor]
#: Plain numbers by name.
Figures: TypeAlias = dict[str, float]


@dataclass
class FitReport:
    """How a fit went.

    Attributes:
        tokenizer: name of the tokenizer.
        n_items: items it was fitted on.
        sizes: codebook sizes used.
        seconds: wall time.
        figures: the tokenizer's closing figures, plain numbers by name.
        history: one dictionary of plain numbers per level or evaluated epoch.
    """

    tokenizer: str
    n_items: int
    sizes: tuple[int, ...]
    seconds: float
    figures: Figures = field(default_factory=dict)
    history: list[Figures] = field(default_factory=list)


def checked(content: torch.Tensor, dim: int) -> torch.Tensor:
    """Item content ``[n, dim]`` as float32 without gradient.

    Raises:
        ConfigError: another shape, NaN or infinity.
    """
    if content.dim() != 2 or content.shape[1] != dim:
        raise ConfigError(f"item content must have shape [items, {dim}], got {list(content.shape)}")
    content = content.detach().float()
    bad = ~torch.isfinite(content.sum(1))
    if bool(bad.any()):
        raise ConfigError(
            f"item content has NaN or infinite values in {int(bad.sum())} rows, first row "
            f"{int(bad.nonzero()[0])}; mend or remove them"
        )
    return content
