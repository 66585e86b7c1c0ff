"""Rating quantisation: the codes and the quantised vector of a residual at an R3-VAE level.

=============== ==================================================================================
softmax         weights of all codewords by softmax of the cosines (equations 4, 5)
topk            the same over the K best codewords (a reading of the sum to K in equation 5)
top1_rating     the best codeword's direction times its cosine; only the index is discrete
top1_projection the same times the residual's length: the projection on that direction (inferred)
ste             nearest codeword, straight through (the ablation of table 8)
=============== ==================================================================================

Source: "R3-VAE" (arXiv 2604.11440), equations 3 to 6.
"""

import torch
import torch.nn.functional as F

from recbole_gr.quality.cohesion import EPS, unit
from recbole_gr.tokenizer.kmeans import nearest_code

MODES = ("softmax", "topk", "top1_rating", "top1_projection", "ste")
SOFT = ("softmax", "topk")  # every rated codeword is in the sum
TOP1 = ("top1_rating", "top1_projection")


def cosines(residual: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Rating scores ``[n, M]``, the cosine of every residual with every codeword (equation 3)."""
    return unit(residual) @ unit(codebook).T


def rate(
    residual: torch.Tensor,
    codebook: torch.Tensor,
    mode: str,
    temperature: float = 1.0,
    k: int = 1,
    codes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise residuals at one level.

    Args:
        residual: float tensor ``[n, d]``.
        codebook: float tensor ``[M, d]``.
        mode: one of ``MODES``.
        temperature: of the softmax (soft modes).
        k: codewords in the sum (``topk``).
        codes: LongTensor ``[n]`` to follow instead of the best rated ones. In the soft modes the
            quantised vector does not depend on the code.

    Returns:
        tuple: the quantised vectors ``[n, d]`` and the codes ``[n]``, those of the highest rating
        (``ste``: of the least Euclidean distance), without gradient.
    """
    if mode == "softmax" or mode == "topk":
        scores = cosines(residual, codebook)
        if codes is None:
            codes = scores.argmax(1)
        if mode == "softmax":
            return torch.softmax(scores / temperature, 1) @ codebook, codes
        best, words = scores.topk(min(k, len(codebook)), dim=1)
        weights = torch.softmax(best / temperature, 1)  # [n, k]
        return (weights.unsqueeze(1) @ codebook[words]).squeeze(1), codes
    if mode == "ste":
        if codes is None:
            with torch.no_grad():
                codes = (codebook.square().sum(1) - 2 * residual @ codebook.T).argmin(1)
        return F.embedding(codes, codebook), codes
    # Codewords are scaled before they are looked up: there are fewer of them than rows.
    directions = unit(codebook)
    if codes is None:
        with torch.no_grad():  # a residual's length changes nothing in the order of its cosines
            codes = (residual @ directions.T).argmax(1)
    word = F.embedding(codes, directions)
    along = (residual * word).sum(1, keepdim=True)
    if mode == "top1_rating":
        along = along / residual.norm(dim=1, keepdim=True).clamp(min=EPS)
    return along * word, codes


def stable_codes(residual: torch.Tensor, codebook: torch.Tensor, mode: str) -> torch.Tensor:
    """Codes ``[n]`` as :func:`rate` gives them, the same whatever batch a row is in.

    Unit vectors at the highest cosine are nearest in Euclidean distance, so both kinds of rating
    are settled by :func:`~recbole_gr.tokenizer.kmeans.nearest_code`.
    """
    return nearest_code(*comparable(residual, codebook, mode))


def comparable(
    residual: torch.Tensor, codebook: torch.Tensor, mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals and codewords whose squared distance orders the codes as the rating does."""
    residual, codebook = residual.double(), codebook.double()
    return (residual, codebook) if mode == "ste" else (unit(residual), unit(codebook))
