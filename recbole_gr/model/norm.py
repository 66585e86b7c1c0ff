"""Root mean square normalisation, and vectors of length 1, with a cheap backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale by the root mean square of the features (T5's layer norm: no mean, no bias).

    ``y = weight * x / sqrt(mean(x^2) + eps)`` over the last dimension. On a CPU torch 2.13 has no
    fused kernel for it, and what it derives for the backward pass takes several times as long as
    the closed form, so there the gradient is written out.
    """

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        return _RMSNorm.apply(x, weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """With ``n = x / r`` and the upstream gradient ``g``: ``dx = (gw - n mean(gw n)) / r``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # half precision sums in single
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)  # [..., 1]
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        grad_weight = (grad * normed).flatten(0, -2).sum(0)
        scaled = grad * weight
        along = (scaled * normed).mean(-1, keepdim=True)
        return (scaled - normed * along).mul_(inverse), grad_weight, None


def unit(x: Tensor) -> Tensor:
    """``x / |x|`` over the last dimension; on a CPU with the gradient written out, as above."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.normalize(x, dim=-1)
    return _Unit.apply(x)


class _Unit(torch.autograd.Function):
    """With ``u = x / |x|`` and the upstream gradient ``g``: ``dx = (g - u (g u)) / |x|``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.clamp_min_(1e-12).reciprocal_()  # [..., 1]
        direction = x * inverse
        ctx.save_for_backward(direction, inverse)
        return direction

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        direction, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, direction).unsqueeze(-1)
        return torch.addcmul(grad, direction, along, value=-1).mul_(inverse)
