"""The inputs of a tokenizer's fit, and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import nn

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


def random_codebooks(sizes: Sequence[int], dim: int, kind: str) -> nn.ParameterList:
    """Codebooks ``[sizes[l], dim]`` for a start without k-means.

    Args:
        sizes: codes of each level.
        dim: length of a codeword.
        kind: ``normal``, of variance ``1 / dim``, so that codewords have a length of about 1; or
            ``uniform``, within ``1 / size`` of 0 (as VQ-VAE's public code has it).
    """
    if kind == "normal":
        return nn.ParameterList(nn.Parameter(torch.randn(n, dim) / dim**0.5) for n in sizes)
    return nn.ParameterList(nn.Parameter((torch.rand(n, dim) * 2 - 1) / n) for n in sizes)
