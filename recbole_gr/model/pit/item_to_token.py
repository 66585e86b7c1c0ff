"""Item-to-Token: a small decoder that writes the SID of an item from its vector alone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.generation.beam_search import NEVER, Step, beam_search, best
from recbole_gr.model.beam_tokens import BeamTokens
from recbole_gr.model.layers import CodeHead, Stack, init_weights
from recbole_gr.model.pit.selection import evaluating
from recbole_gr.sid.likelihood import code_losses
from recbole_gr.sid.trie import SIDTrie


class ItemToToken(nn.Module):
    """``P(c | sg(X_i))``, code by code; the item vector takes the place of the first token (PIT).

    It may write any SID, and what it proposes becomes legal. With a tree it compares the codes of
    the SIDs in it and proposes no others: a code that a loss over the tree never compared with the
    target's has a probability that means nothing. The gradient stops at the vector. Levels have
    embedding rows of their own, which also tell the positions (inferred).
    """

    level_offset: Tensor

    def __init__(
        self,
        size: int,
        sizes: Sequence[int],
        n_layers: int,
        n_heads: int,
        head_size: int,
        inner: int,
        dropout: float,
        init_std: float,
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        starts = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        self.register_buffer("level_offset", starts, persistent=False)
        self.begin = nn.Linear(size, size)
        self.code_embedding = nn.Embedding(sum(self.sizes[:-1]) or 1, size)
        self.stack = Stack(
            n_layers, size, n_heads, head_size, inner, dropout, causal=True, position="rotary"
        )
        self.heads = nn.ModuleList(CodeHead(size, n) for n in self.sizes)
        self.apply(lambda module: init_weights(module, init_std))

    def level_losses(self, vectors: Tensor, codes: Tensor, trie: SIDTrie | None = None) -> Tensor:
        """``-log P`` of each code given those before it.

        Args:
            vectors: ``[n, d]``; their gradient is cut here.
            codes: ``[n, L]``.
            trie: the SIDs that there are, see the class; None: all.

        Returns:
            ``[n, L]`` float32.
        """
        earlier = self.code_embedding((codes + self.level_offset)[:, :-1])
        x = torch.cat([self.begin(vectors.detach()).unsqueeze(1), earlier], dim=1)  # [n, L, d]
        hidden = self.stack(x)
        logits = [head(hidden[:, level]) for level, head in enumerate(self.heads)]
        return torch.stack(code_losses(logits, codes, trie), 1)

    @torch.no_grad()
    def log_prob(self, vectors: Tensor, codes: Tensor, trie: SIDTrie | None = None) -> Tensor:
        """``[n]`` log-probability of the SIDs ``[n, L]`` of items ``[n, d]``, without dropout."""
        with evaluating(self):
            return -self.level_losses(vectors, codes, trie).sum(1)

    @torch.no_grad()
    def propose(
        self, vectors: Tensor, width: int, trie: SIDTrie | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``width`` most probable SIDs of each item by beam search, without dropout.

        Args:
            vectors: ``[n, d]``.
            width: beams; at most as many as there are SIDs.
            trie: the SIDs that there are, see the class; None: all.

        Returns:
            ``(codes [n, width, L], log-probabilities [n, width])``, best first; equal scores keep
            the order of the codes, in a tree that of the items. -inf where the tree has no more.
        """
        with evaluating(self):
            if trie is None:
                return self._search(vectors, width)
            beams = beam_search(self._steps(vectors), trie, len(vectors), width, renormalise=True)
            missing = width - beams.codes.shape[1]
            codes = F.pad(beams.codes, (0, 0, 0, missing))
            return codes, F.pad(beams.scores, (0, missing), value=NEVER)

    def _steps(self, vectors: Tensor) -> Step:
        """Scores codes level by level (see :mod:`recbole_gr.generation.beam_search`)."""
        own = [BeamTokens() for _ in self.stack.blocks]

        def step(level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
            if codes is None:
                x = self.begin(vectors).unsqueeze(1)
            else:
                x = self.code_embedding(codes + self.level_offset[level - 1])
            position = torch.full((1,), level, device=vectors.device)
            return self.heads[level](self.stack.step(x, position, parents, own))

        return step

    def _search(self, vectors: Tensor, width: int) -> tuple[Tensor, Tensor]:
        step = self._steps(vectors)
        score = torch.zeros(len(vectors), 1, device=vectors.device)
        codes = torch.empty(len(vectors), 1, 0, dtype=torch.long, device=vectors.device)
        parents = None
        for level, size in enumerate(self.sizes):
            last = codes[:, :, -1] if level else None
            logp = step(level, last, parents).float().log_softmax(2)
            extended = (score.unsqueeze(2) + logp).flatten(1)  # [n, beams * K]
            order = torch.arange(extended.shape[1], device=vectors.device)
            keep = min(width, extended.shape[1])
            score, index = best(extended, order.expand_as(extended), keep)
            parents = index // size
            earlier = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
            codes = torch.cat([earlier, (index % size).unsqueeze(2)], dim=2)
        return codes, score
