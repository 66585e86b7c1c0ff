"""The Recursive-Assignment Network: from one vector through the levels of a SID, code by code."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.model.layers import logits_of


class Level(NamedTuple):
    """What turns a code of the level above and the guidance into the logits of a level.

    Attributes:
        context: ``[V_above, H]`` what each code above adds to the hidden layer, bias included.
        out: ``[V, H]`` rows that the hidden layer is multiplied with.
        bias: ``[V]``.
    """

    context: Tensor
    out: Tensor
    bias: Tensor


class StraightThrough(torch.autograd.Function):
    """``hard`` with the gradient of ``soft``: the codeword of the largest logit (the first of
    equal ones), as if it were the mixture ``softmax(logits / temperature) @ codebook``.

    Written as ``soft + (hard - soft).detach()`` the mixture is computed for its gradient alone.
    Here it is not, and no more is kept than the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, codebook: Tensor, temperature: float) -> Tensor:
        """``logits [n, V]``, ``codebook [V, d]`` -> ``[n, d]``."""
        ctx.save_for_backward(logits, codebook)
        ctx.temperature = temperature
        return F.embedding(logits.max(-1).indices, codebook)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Products are taken in the type of the logits, as under autocast."""
        logits, codebook = ctx.saved_tensors
        p = mixture(logits, ctx.temperature)
        gradient = gradient.to(logits.dtype)
        of_codebook = p.to(logits.dtype).T @ gradient
        weighted = p * (gradient @ codebook.to(logits.dtype).T)
        of_logits = weighted - p * weighted.sum(-1, keepdim=True)
        if ctx.temperature != 1:
            of_logits = of_logits / ctx.temperature
        return of_logits.to(logits.dtype), of_codebook.to(codebook.dtype), None


class RecursiveAssignment(nn.Module):
    """Logits of every level from a guidance vector ``g`` (IntRR, released code and figure 2).

    With codebooks ``C_l [V_l, d]`` and a two-layer ReLU network ``f_l`` per level after the first::

        q_1 = g,   q_l = f_l([k_(l-1); g]),   s_l = C_l q_l,   p_l = softmax(s_l / temperature)

    and ``k_l`` the codeword of the known code (:meth:`teach`), or the context ``c_l`` that the
    level chose itself (:meth:`assign`). A level sees the code right above it and no earlier one.
    Items and users are read by the same weights.

    ``f_l`` is linear before and after its ReLU, so what codewords contribute is computed once per
    codeword (:meth:`levels`) and looked up, instead of once per row.

    Args:
        sizes: codes of each level, ``V_l``.
        width: ``d``, of guidance and codewords.
        hidden: ``H``, hidden layer of ``f_l``.
        context: ``ste``: ``c_l`` is the codeword of the largest logit, with the gradient of the
            mixture ``p_l C_l`` (released code). ``soft``: the mixture itself (the paper's text).
        temperature: of ``p_l``; losses and decoding use the logits as they are.
        std: of the normal initial codewords (1 in the released code).
    """

    inner: Sequence[nn.Linear]
    outer: Sequence[nn.Linear]

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        hidden: int,
        context: str = "ste",
        temperature: float = 1.0,
        std: float = 1.0,
    ):
        super().__init__()
        self.sizes, self.width = tuple(sizes), width
        self.straight_through, self.temperature = context == "ste", temperature
        self.codebooks = nn.ParameterList(torch.randn(size, width) * std for size in sizes)
        inner = (nn.Linear(2 * width, hidden) for _ in sizes[1:])
        self.inner = nn.ModuleList(inner)  # type: ignore[assignment]
        outer = (nn.Linear(hidden, width) for _ in sizes[1:])
        self.outer = nn.ModuleList(outer)  # type: ignore[assignment]

    def levels(self) -> list[Level]:
        """For every level after the first, what its codewords contribute."""
        return [
            Level(
                F.linear(above, inner.weight[:, : self.width], inner.bias),
                codebook @ outer.weight,
                codebook @ outer.bias,
            )
            for above, codebook, inner, outer in zip(
                self.codebooks, self.codebooks[1:], self.inner, self.outer
            )
        ]

    def guide(self, guidance: Tensor) -> tuple[Tensor, ...]:
        """``[..., d]`` -> per level after the first, ``[..., H]`` of its hidden layer."""
        if not self.inner:
            return ()
        weight = torch.cat([inner.weight[:, self.width :] for inner in self.inner])
        return F.linear(guidance, weight).chunk(len(self.inner), dim=-1)

    def first(self, guidance: Tensor) -> Tensor:
        """``[..., d]`` -> logits ``[..., V_1]`` of the first level."""
        return logits_of(guidance, self.codebooks[0])

    def teach(self, guidance: Tensor, codes: Tensor) -> list[Tensor]:
        """Logits of each level where the codes above it are known (teacher forcing).

        Args:
            guidance: ``[..., d]``.
            codes: ``[..., L]``; the last one is not looked at.

        Returns:
            per level ``[..., V_l]``.
        """
        logits = [self.first(guidance)]
        hidden = zip(self.levels(), self.guide(guidance))
        for place, (level, guided) in enumerate(hidden):
            known = F.embedding(codes[..., place], level.context)
            logits.append(follow(level, known + guided))
        return logits

    def assign(self, guidance: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One token for each vector, from the levels' own choices.

        Args:
            guidance: ``[n, d]``.

        Returns:
            the tokens ``[n, d]``, which are the sum of the contexts of all levels, and per level
            the logits ``[n, V_l]``.
        """
        logits, context = [self.first(guidance)], None
        token = context = self._context(0, logits[0])
        hidden = zip(self.levels(), self.guide(guidance))
        for place, (level, guided) in enumerate(hidden):
            inner = self.inner[place]
            own = F.linear(context, inner.weight[:, : self.width], inner.bias)
            logits.append(follow(level, own + guided))
            context = self._context(place + 1, logits[-1])
            token = token + context
        return token, logits

    def _context(self, level: int, logits: Tensor) -> Tensor:
        codebook = self.codebooks[level]
        if self.straight_through and not torch.compiler.is_compiling():
            return StraightThrough.apply(logits, codebook, self.temperature)
        soft = self.probabilities(logits).to(codebook.dtype) @ codebook
        if not self.straight_through:
            return soft
        # The same as a graph that can be compiled, where a number of a Function cannot vary.
        return soft + (codebook[logits.argmax(-1)] - soft).detach()

    def probabilities(self, logits: Tensor) -> Tensor:
        """``p_l`` of a level's logits."""
        return mixture(logits, self.temperature)


def mixture(logits: Tensor, temperature: float) -> Tensor:
    """``softmax(logits / temperature)`` in single precision."""
    logits = logits.float()
    return (logits if temperature == 1 else logits / temperature).softmax(-1)


def follow(level: Level, hidden: Tensor) -> Tensor:
    """Logits ``[..., V]`` of a level from its hidden layer ``[..., H]`` before the ReLU."""
    return logits_of(F.relu(hidden), level.out, level.bias)
