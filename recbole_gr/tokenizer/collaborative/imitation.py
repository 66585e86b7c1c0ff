"""A tokenizer that is fitted to SIDs which exist already, so that it can go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.collaborative.drift import code_log_probs
from recbole_gr.tokenizer.collaborative.losses import collaborative_loss, quantization_loss
from recbole_gr.tokenizer.fitting import checked

if TYPE_CHECKING:
    from recbole_gr.tokenizer.collaborative.base import CollaborativeRQVAE
    from recbole_gr.tokenizer.fitting import Figures


def fit_to_codes(
    tokenizer: CollaborativeRQVAE,
    content: torch.Tensor,
    codes: torch.Tensor,
    collaborative: torch.Tensor,
    progress: bool = True,
) -> Figures:
    """Train an untrained tokenizer to give the items these codes.

    The loss is that of the first period along the given codes instead of the nearest ones, and on
    each level the cross-entropy of the given code under a softmax of minus the squared distances to
    all codewords: that of DACT's KL term, at temperature 1. So an item lies as far in its cell as
    the terms of later periods take for certain; where distances only have to be in order, latents
    shrink until those terms are nothing beside the collaborative one, and a short fine-tuning gives
    three items of four another code. Each codeword starts as the mean of what is left of the
    latents of its items.

    Args:
        tokenizer: changed in place.
        content: float tensor ``[n, d]``, no padding row.
        codes: LongTensor ``[n, L]``.
        collaborative: float tensor ``[n, e]``.
        progress: show a progress bar.

    Returns:
        dict: figures of the training, and ``agreement_1``, ..., ``agreement_L``: the share of items
        to which it gives the codes up to this level.

    Raises:
        ConfigError: codes that do not fit the codebooks, or content that cannot be used.
    """
    check_codes(codes, tokenizer.sizes, len(content))
    items = checked(content, tokenizer.dim).to(tokenizer.device)
    codes = codes.to(tokenizer.device)
    with tokenizer.seeded():
        content, collaborative, known = tokenizer.inputs(items, collaborative)
        _start_codebooks(tokenizer, content, codes)

        def loss_of(rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            some = None if known is None else known[rows]
            loss, told = forced_loss(
                tokenizer, content[rows], codes[rows], collaborative[rows], some
            )
            return loss, {"loss": loss.detach(), "code_loss": told.detach()}

        options = tokenizer.options
        epochs, rate = options["tokenizer_epochs"], options["tokenizer_learning_rate"]
        figures, _ = tokenizer.train_with(loss_of, content, epochs, rate, progress)
    same = (tokenizer.encode(items) == codes).cumprod(1).double().mean(0)
    levels = enumerate(same.tolist(), start=1)
    return {**figures, **{f"agreement_{level}": share for level, share in levels}}


def forced_loss(
    tokenizer: CollaborativeRQVAE,
    content: torch.Tensor,
    codes: torch.Tensor,
    collaborative: torch.Tensor,
    known: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch ``[n, d]`` along given codes ``[n, L]``, and the part of the codes."""
    latent = residual = tokenizer.encoder(content)
    residuals, words, told = [], [], latent.new_zeros(())
    for codebook, code in zip(tokenizer.codebooks, codes.unbind(1)):
        told = told + F.nll_loss(code_log_probs(residual, codebook), code)
        residuals.append(residual)
        words.append(F.embedding(code, codebook))
        residual = residual - words[-1]
    straight = latent + (reduce(torch.add, words) - latent).detach()
    loss = tokenizer.reconstruction_weight * F.mse_loss(tokenizer.decoder(straight), content)
    loss = loss + quantization_loss(residuals, words, tokenizer.options["commitment_weight"])
    shared = collaborative_loss(straight, collaborative, known, tokenizer.cosine)
    return loss + tokenizer.options["cf_weight"] * shared + told, told


def check_codes(codes: torch.Tensor, sizes: Sequence[int], n_items: int) -> None:
    """See that codes ``[n, L]`` can be those of a tokenizer with these codebooks.

    Raises:
        ConfigError: other numbers of items or levels, or codes beyond a codebook.
    """
    if list(codes.shape) != [n_items, len(sizes)]:
        raise ConfigError(
            f"codes {list(codes.shape)} do not fit {n_items} items and {len(sizes)} levels "
            "(sid_levels)"
        )
    for level, (column, size) in enumerate(zip(codes.unbind(1), sizes), start=1):
        if int(column.max()) >= size:
            raise ConfigError(
                f"level {level} of the SIDs has code {int(column.max())}, and the codebook {size} "
                "codes: give a larger codebook_size"
            )


@torch.no_grad()
def _start_codebooks(
    tokenizer: CollaborativeRQVAE, content: torch.Tensor, codes: torch.Tensor
) -> None:
    residual = torch.cat([tokenizer.encoder(part) for part in content.split(2**14)])
    for codebook, code in zip(tokenizer.codebooks, codes.unbind(1)):
        count = code.bincount(minlength=len(codebook)).unsqueeze(1)
        sums = torch.zeros_like(codebook).index_add_(0, code, residual)
        codebook.copy_(torch.where(count > 0, sums / count.clamp(min=1), residual.mean(0)))
        residual = residual - codebook[code]
