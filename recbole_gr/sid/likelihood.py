"""Likelihood of SIDs, which training maximises and decoding adds up.

A softmax over the whole codebook of a level spends probability on codes that lead to no item. In a
tree of SIDs it is taken over the codes that may follow the prefix, so that the probabilities of all
SIDs sum to 1 and ``-log P`` is the loss of exactly what decoding with ``renormalise`` ranks.
"""

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_gr.sid.trie import DEAD, SIDTrie

IGNORED = -100


def level_losses(
    logits: Sequence[Tensor],
    codes: Tensor,
    counted: Tensor | None = None,
    trie: SIDTrie | None = None,
    label_smoothing: float = 0.0,
) -> list[Tensor]:
    """Per level, the mean over the targets of ``-log P`` of a code given those before it.

    Args:
        logits: per level ``[..., V_l]``.
        codes: ``[..., L]`` the targets' SIDs.
        counted: ``[...]`` bool, which targets count; all where None.
        trie: normalise over its codes, see :func:`code_losses`; None: over the codebook.
        label_smoothing: share of the loss that is the mean over all codes normalised over.

    Returns:
        ``L`` scalars, float32.
    """
    if trie is None:
        target = codes if counted is None else codes.masked_fill(~counted.unsqueeze(-1), IGNORED)
        return [
            F.cross_entropy(
                scores.flatten(0, -2).float(),
                target[..., level].flatten(),
                ignore_index=IGNORED,
                label_smoothing=label_smoothing,
            )
            for level, scores in enumerate(logits)
        ]
    losses = code_losses(logits, codes, trie, label_smoothing)
    if counted is None:
        return [loss.mean() for loss in losses]
    weight = counted.float()
    total = weight.sum().clamp_min(1)
    return [(loss * weight).sum() / total for loss in losses]


def code_losses(
    logits: Sequence[Tensor],
    codes: Tensor,
    trie: SIDTrie | None = None,
    label_smoothing: float = 0.0,
) -> list[Tensor]:
    """Per level, ``-log P`` of each code given those before it, ``[...]`` float32.

    Args: see :func:`level_losses`; what a tree does not know, see :class:`Descent`.
    """
    if trie is None:
        return [
            F.cross_entropy(
                scores.flatten(0, -2).float(), codes[..., level].flatten(), reduction="none",
                label_smoothing=label_smoothing,
            ).view(codes.shape[:-1])
            for level, scores in enumerate(logits)
        ]  # fmt: skip
    descent, losses = Descent(trie), []
    for level, scores in enumerate(logits):
        code, scores = codes[..., level], scores.float()
        own = scores.gather(-1, code.unsqueeze(-1)).squeeze(-1)
        allowed = descent.allowed(scores)
        loss = descent.to(code, own, allowed.logsumexp(-1)) - own
        if label_smoothing:
            open_ = allowed > float("-inf")
            mean = allowed.masked_fill(~open_, 0.0).sum(-1) / open_.sum(-1)
            loss = loss + label_smoothing * (own - mean)
        losses.append(loss)
    return losses


class Descent:
    """Follows SIDs down a tree, all of them at once, and says what their codes are normalised by.

    A SID that the tree lacks (PIT may propose one) is judged as if it had been added to it alone:
    where it leaves the tree its code stands beside those that are there, and below it stands alone.

    Args:
        trie: the tree.
    """

    def __init__(self, trie: SIDTrie):
        self.trie, self.level = trie, 0
        self._enter(trie.root(1)[0])

    def _enter(self, nodes: Tensor) -> None:
        """Stand at ``nodes [...]`` of depth ``level``, -1 outside the tree, or ``[1]`` the root."""
        self.nodes = nodes
        # Outside some node's codes serve, so that no sum is empty; it is not used.
        self.options = self.trie.options(self.level, nodes.clamp_min(0))

    def allowed(self, logits: Tensor) -> Tensor:
        """``[..., K]`` those of ``logits [..., V]`` of the codes that may follow, else -inf."""
        return allowed_logits(self.options, logits)

    def to(self, code: Tensor, own: Tensor, normaliser: Tensor) -> Tensor:
        """Go down by ``code [...]``, whose logit is ``own``.

        Args:
            normaliser: log-sum-exp of the logits that are :meth:`allowed`.

        Returns:
            ``[...]`` the same with the code itself, where the tree lacks it.
        """
        here = self.nodes.expand_as(code)
        codes, closed = self.options
        closed = closed.expand(*code.shape, -1)
        child = self.trie.advance(self.level, here, code, (codes, closed))
        child = child.masked_fill(here < 0, DEAD)
        self.level += 1
        if self.level < self.trie.n_levels:
            self._enter(child)
        with_own = torch.where(child < 0, torch.logaddexp(normaliser, own), normaliser)
        return torch.where(here < 0, own, with_own)


def allowed_logits(options: tuple[Tensor | None, Tensor], logits: Tensor) -> Tensor:
    """The logits of the codes that may follow some nodes, -inf where a place leads to no item.

    Args:
        options: of the nodes, see :meth:`SIDTrie.options`.
        logits: ``[..., V]``, one row per node, or any rows where there is one node.

    Returns:
        ``[..., K]``.
    """
    codes, closed = options
    if codes is not None:
        logits = logits.gather(-1, codes.expand(*logits.shape[:-1], -1))
    return logits + closed


def check_normalisation(config: Mapping[str, Any]) -> None:
    """Warn where ``renormalise``, given or by default, contradicts ``loss_normalisation``."""
    over_trie, renormalise = config["loss_normalisation"] == "trie", config["renormalise"]
    if renormalise in (None, over_trie):
        return
    why = (
        "Codes that lead to no item were never trained against, and now take probability from "
        "those that do"
        if over_trie
        else "What was learned against codes that lead to no item is left out of the scores (the "
        "released IntRR has it so)"
    )
    getLogger().warning(
        f"renormalise: {renormalise} after a loss with loss_normalisation: "
        f"{config['loss_normalisation']}. {why}; leave renormalise out, and decoding follows the "
        "loss."
    )
