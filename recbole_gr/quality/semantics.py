"""SC and PD of a finished table: the content that its SIDs keep."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch

from recbole_gr.quality.cohesion import discrimination, unit

_ROWS = 2**14  # items looked at once


def semantic_figures(
    codes: torch.Tensor,
    sizes: Sequence[int],
    content: torch.Tensor,
    codebooks: Sequence[torch.Tensor] | None = None,
    quantized: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Semantic Cohesion and Preference Discrimination of SIDs (R3-VAE; the evaluation form).

    SC of depth ``l`` is over the items that share their first ``l`` codes, PD of level ``l`` over
    the codewords of that level that some item has.

    The paper takes a tokenizer's own codewords and quantised vectors, which are other things in
    each: in residual k-means the deepest vectors of a group are one vector, and the first codewords
    hold the mean; in R3-VAE vectors keep the item's own part along the reference, which no codeword
    holds. So the figures that compare tokenizers are by content alone, which needs nothing but the
    SIDs: the codeword of a level is the mean of the items that have it, taken from what the levels
    before left, and the quantised vector is their sum. For residual k-means these are nearly its
    own.

    SC of quantised vectors can be high because a collapsed quantiser gives all items one vector;
    SC of the content itself cannot.

    Args:
        codes: LongTensor ``[n, L]``.
        sizes: codebook size of each level.
        content: float tensor ``[n, d]``.
        codebooks: the tokenizer's codewords of each level, ``L`` tensors ``[sizes[l], e]``, if any.
        quantized: function from content and codes of a batch to quantised vectors ``[b, e]``;
            needed with ``codebooks``.

    Returns:
        dict: ``sc``, ``sc_content`` and ``pd``, the means over levels of the lists ``sc_levels``,
        ``sc_content_levels`` and ``pd_levels``; in ``own``, with ``codebooks``, ``sc``, ``pd``,
        ``sc_levels`` and ``pd_levels`` as the tokenizer's own vectors have them. None stands where
        no group has two items, or a level has one code.
    """
    means = residual_means(codes, sizes, content)

    def sum_of_means(_: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        return reduce(torch.add, (book[code] for book, code in zip(means, part.unbind(1))))

    raw = prefix_cohesion(codes, lambda rows: content[rows])
    figures = _figures(codes, content, means, sum_of_means)
    figures |= {"sc_content": _mean(raw), "sc_content_levels": raw, "own": {}}
    if codebooks is not None:
        if quantized is None:
            raise TypeError("semantic_figures: codebooks need the function quantized")
        figures["own"] = _figures(codes, content, codebooks, quantized)
    return figures


def _figures(
    codes: torch.Tensor,
    content: torch.Tensor,
    codebooks: Sequence[torch.Tensor],
    quantized: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> dict[str, Any]:
    pd = []
    for book, column in zip(codebooks, codes.unbind(1)):
        used = torch.bincount(column, minlength=len(book)).to(book.device) > 0
        pd.append(float(discrimination(book[used])) if int(used.sum()) > 1 else None)
    sc = prefix_cohesion(codes, lambda rows: quantized(content[rows], codes[rows]))
    return {"sc": _mean(sc), "pd": _mean(pd), "sc_levels": sc, "pd_levels": pd}


def residual_means(
    codes: torch.Tensor, sizes: Sequence[int], content: torch.Tensor
) -> list[torch.Tensor]:
    """Codewords of each level as means of content, level by level on what the others leave.

    Returns:
        list: per level float32 ``[sizes[l], d]``; zero for codes without items.
    """
    books: list[torch.Tensor] = []
    for level, size in enumerate(sizes):
        sums = torch.zeros(size, content.shape[1])
        for rows in torch.arange(len(codes)).split(_ROWS):
            rest = unit(content[rows].float())
            for book, code in zip(books, codes[rows].unbind(1)):
                rest = rest - book[code]
            sums.index_add_(0, codes[rows, level], rest)
        counts = torch.bincount(codes[:, level], minlength=size).clamp(min=1)
        books.append(sums / counts.unsqueeze(1))
    return books


def prefix_cohesion(
    codes: torch.Tensor, vectors: Callable[[torch.Tensor], torch.Tensor]
) -> list[float | None]:
    """SC of each prefix length, as :func:`~recbole_gr.quality.cohesion.group_cohesion`, in batches.

    Args:
        codes: LongTensor ``[n, L]``.
        vectors: function from rows ``[b]`` to their vectors ``[b, e]``.

    Returns:
        list: ``L`` numbers; None where no prefix has two items.
    """
    levels = cohesion_of_prefixes(codes, vectors)
    return [float(values.mean()) if len(values) else None for values in levels]


def cohesion_of_prefixes(
    codes: torch.Tensor, vectors: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Mean cosine of two items of each prefix, by prefix length.

    Args:
        codes, vectors: as for :func:`prefix_cohesion`.

    Returns:
        list: ``L`` tensors with a number for each prefix of two items or more, in the order of
        their codes.
    """
    groups, counts = [], []
    sums: list[torch.Tensor] = []
    squares: list[torch.Tensor] = []
    prefix = codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        prefix = torch.unique(prefix * (int(column.max()) + 1) + column, return_inverse=True)[1]
        size = torch.bincount(prefix)
        # Groups of one have no pair: only the others get a row of sums.
        place = torch.where(size > 1, (size > 1).cumsum(0) - 1, -1)
        groups.append(place[prefix])
        counts.append(size[size > 1])
    for rows in torch.arange(len(codes)).split(_ROWS):
        part = unit(vectors(rows).float()).cpu()
        for level, (group, count) in enumerate(zip(groups, counts)):
            if len(sums) == level:
                sums.append(torch.zeros(len(count), part.shape[1]))
                squares.append(torch.zeros(len(count)))
            here = group[rows]
            sums[level].index_add_(0, here[here >= 0], part[here >= 0])
            squares[level].index_add_(0, here[here >= 0], part[here >= 0].square().sum(1))
    return [
        (s.square().sum(1) - q) / (n * (n - 1))
        for s, q, n in zip(sums, squares, counts)
    ]


def distinct_rows(content: torch.Tensor) -> int:
    """How many different content vectors there are: no tokenizer of content can do better."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(content.shape[1], generator=generator, dtype=torch.float64)
    parts = [(part.double() * direction).sum(1) for part in content.split(_ROWS)]
    return len(torch.unique(torch.cat(parts)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
