"""Selection of drifted items: DACT's Collaborative Drift Identification Module.

Source: DACT (arXiv 2603.29705) and its published code, which is followed where the two differ.
"""

import torch
import torch.nn.functional as F
from torch import nn


class DriftIdentification(nn.Module):
    """CDIM: a key-value memory that turns an item's movement into a drift confidence.

    The latent of the last period, the present one (without gradient) and the collaborative vector,
    each of length 1, make the features ``[a * g, b * g, a - b]``: agreement with the collaborative
    vector before and now, and movement. Their cosines with ``slots`` keys, divided by a
    temperature, weigh the values, and a small network maps the result to (0, 1). Used in training
    alone. With latents of 32 dimensions it has 7,361 parameters.

    Args:
        width: length ``e`` of the latents and collaborative vectors.
        slots: patterns of drift in the memory.
        value_width, hidden: sizes of the values and of the network.
        temperature: of the attention.
    """

    def __init__(
        self,
        width: int,
        slots: int = 32,
        value_width: int = 64,
        hidden: int = 32,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.keys = nn.Parameter(nn.init.orthogonal_(torch.empty(slots, 3 * width)))
        self.values = nn.Parameter(nn.init.xavier_normal_(torch.empty(slots, value_width)))
        self.head = nn.Sequential(
            nn.LayerNorm(value_width), nn.Linear(value_width, hidden), nn.GELU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        self.temperature = temperature

    def forward(
        self, before: torch.Tensor, latent: torch.Tensor, collaborative: torch.Tensor
    ) -> torch.Tensor:
        """Drift confidence ``[n]`` from latents ``[n, e]`` of the last period and of now, and
        collaborative vectors ``[n, e]``."""
        vectors = (before, latent.detach(), collaborative)
        a, b, g = (F.normalize(vector, dim=1) for vector in vectors)
        features = F.normalize(torch.cat([a * g, b * g, a - b], 1), dim=1)  # [n, 3e]
        cosines = features @ F.normalize(self.keys, dim=1).T
        read = torch.softmax(cosines / self.temperature, 1) @ self.values
        return torch.sigmoid(self.head(read)).squeeze(1)


def drift_mask(confidence: torch.Tensor, share: float) -> torch.Tensor:
    """Which items of a batch count as drifting: the ``share`` of highest confidence, at least one.

    Its values are 1 and 0 to the last bit; its gradient is that of the confidence (straight
    through).

    Args:
        confidence: ``[n]``, differentiable.
        share: of the batch, rounded down.
    """
    most = max(1, int(share * len(confidence)))
    hard = torch.zeros_like(confidence)
    hard[confidence.detach().topk(most).indices] = 1.0
    return hard + (confidence - confidence.detach())


def mix(
    mask: torch.Tensor, latent: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of the two branches, ``[n, e]`` each: drifting items live and the others as they were
    (drift branch), and the reverse (stationary branch)."""
    mask = mask.unsqueeze(1)
    return mask * latent + (1 - mask) * before, (1 - mask) * latent + mask * before


def code_log_probs(
    latent: torch.Tensor, codebook: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """``[n, V]`` log-probability of each code of a level: softmax of minus squared distance."""
    squares = latent.square().sum(1, keepdim=True) + codebook.square().sum(1)
    distances = squares - 2 * latent @ codebook.T
    return torch.log_softmax(-distances / temperature, 1)


def assignment_drift(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL of the last period's code assignment and the present one, log-probabilities ``[n, V]``,
    averaged over items and codes (the published code; the paper's sum is V times as large)."""
    return F.kl_div(student, teacher, log_target=True, reduction="none").mean()
