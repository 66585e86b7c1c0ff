"""The table that gives every item its semantic ID (SID), and the file that keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.formats import rows_of, text, text_array, tokens_without_padding
from recbole_gr.storage.files import atomic_write
from recbole_gr.untrusted.archives import load_npz
from recbole_gr.untrusted.shapes import NAME, OrNone, Rule, at_least, require, taking

_INT64_MAX = 2**63 - 1
MOST_LEVELS = 256  # of a file
LEAST_LARGE = 2**16  # codes that a level of a file may have, however few items there are
_TEXT = Rule("an array of bytes", lambda value: value.dtype == np.uint8 and value.ndim == 1)
_ARRAYS = {
    "codes": Rule("integers of shape [items, levels]", lambda value: _are_integers(value, 2)),
    "sizes": Rule("integers, one for each level", lambda value: _are_integers(value, 1)),
    "meta": _TEXT,
    "item_tokens?": _TEXT,
    "hash?": _TEXT,
}
#: What the `meta` of a table may be that comes from a file.
META = {
    "content_levels?": at_least(1),
    "options?": dict,
    "file?": NAME,
    "tokenizer?": str,
    "content?": OrNone(str),
    "before_policy?": dict,
    "fit?": dict,
}
_Built = TypeVar("_Built")
REMEDY = "Write it again with python -m recbole_gr.tokenize."


def sid_keys(codes: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """One integer per SID, in the lexicographic order of the SIDs.

    Equal SIDs have equal keys and a smaller SID has a smaller key, so one sort of the keys
    sorts the SIDs. Where the product of the codebook sizes overflows 63 bits, the keys of
    the levels so far are replaced by their ranks, which keeps the order.

    Args:
        codes: LongTensor ``[N, L]``, ``0 <= codes[:, l] < sizes[l]``.
        sizes: codebook size of each level.

    Returns:
        LongTensor ``[N]``.
    """
    keys, span = codes.new_zeros(len(codes)), 1
    for level, size in enumerate(sizes):
        if span * size > _INT64_MAX:
            distinct, keys = torch.unique(keys, return_inverse=True)
            span = max(len(distinct), 1)
        keys = keys * size + codes[:, level]
        span *= size
    return keys


@dataclass(frozen=True, eq=False)
class SIDTable:
    """Semantic IDs of a catalogue; row ``i`` belongs to RecBole's internal item id ``i``.

    Attributes:
        codes: LongTensor ``[n_items, L]``. Row 0 is the padding item and holds -1;
            elsewhere ``0 <= codes[i, l] < sizes[l]``.
        sizes: codebook size of each level, ``L`` positive integers.
        meta: where the SIDs come from; plain values that JSON can hold.

    Two items may have the same SID (collision policy ``share``).

    Example: three items with two levels of four codes, the first two items sharing a SID::

        codes = [[-1, -1],      # padding
                 [ 2,  0],
                 [ 2,  0],
                 [ 3,  1]]
        sizes = (4, 4)
        groups() -> [0, 0, 1], [2, 1]

    Raises:
        ConfigError: codes of wrong shape or type, negative, or outside their codebook.
    """

    codes: torch.Tensor
    sizes: tuple[int, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        codes = self.codes
        if not torch.is_tensor(codes) or codes.dtype != torch.int64 or codes.dim() != 2:
            raise ConfigError("SID codes must be an int64 tensor of shape [n_items, levels]")
        if len(codes) < 2 or codes.shape[1] < 1:
            raise ConfigError(
                f"a SID table needs a padding row, at least one item and one level; "
                f"got codes of shape {list(codes.shape)}"
            )
        if len(self.sizes) != codes.shape[1] or min(self.sizes) < 1:
            raise ConfigError(
                f"SID codes have {codes.shape[1]} levels but the codebook sizes are {self.sizes}; "
                f"give one positive size per level"
            )
        if bool((codes[0] != -1).any()):
            raise ConfigError("row 0 of a SID table is the padding item and must hold -1")
        check_codes(codes[1:], self.sizes)

    @classmethod
    def from_item_codes(
        cls, item_codes: torch.Tensor, sizes: Sequence[int], meta: Mapping[str, Any] | None = None
    ) -> SIDTable:
        """Table from the codes ``[n_items - 1, L]`` of the items 1, 2, ... (no padding row)."""
        padding = item_codes.new_full((1, item_codes.shape[1]), -1)
        return cls(torch.cat([padding, item_codes]), tuple(sizes), dict(meta or {}))

    @property
    def n_items(self) -> int:
        """Rows of the table: the items and the padding item."""
        return self.codes.shape[0]

    @property
    def n_levels(self) -> int:
        """Levels of a SID."""
        return self.codes.shape[1]

    @property
    def content_levels(self) -> int:
        """Levels that come from content; the suffix of a collision policy follows them."""
        return min(self.meta.get("content_levels", self.n_levels), self.n_levels)

    def groups(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Items grouped by SID.

        Returns:
            tuple: LongTensor ``[n_items - 1]``, the index of each item's SID among the
            distinct SIDs in lexicographic order (entry 0 belongs to item 1), and LongTensor
            ``[n_distinct]``, the number of items of each distinct SID.
        """
        keys = sid_keys(self.codes[1:], self.sizes)
        _, index, counts = torch.unique(keys, return_inverse=True, return_counts=True)
        return index, counts

    def to(self, device: torch.device | str) -> SIDTable:
        """The same table with its codes on ``device``."""
        return replace(self, codes=self.codes.to(device))

    def digest(self) -> str:
        """sha256 (hexadecimal) of the sizes and codes."""
        sha = hashlib.sha256(json.dumps(self.sizes).encode())
        sha.update(np.ascontiguousarray(self.codes.cpu().numpy().astype("<i8", copy=False)).data)
        return sha.hexdigest()

    def save(self, path: str | Path, item_tokens: Sequence[str] | None = None) -> None:
        """Write codes, sizes, meta and item tokens to one ``.npz`` file, without pickle, and with
        the hash of it all.

        Args:
            path: file to write.
            item_tokens: external item tokens by internal id, ``n_items`` strings (entry 0 is
                RecBole's padding token). :meth:`load` uses them to find each item's row.
        """
        arrays: dict[str, Any] = {
            "codes": self.codes[1:].cpu().numpy().astype(np.int32),
            "sizes": np.asarray(self.sizes, dtype=np.int64),
            "meta": text_array(json.dumps(self.meta, sort_keys=True)),
        }
        if item_tokens is not None:
            tokens = tokens_without_padding(item_tokens, self.n_items)
            arrays["item_tokens"] = text_array("\0".join(tokens))
        arrays["hash"] = text_array(_hash(arrays))
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path, item_tokens: Sequence[str] | None = None) -> SIDTable:
        """Read a table that :meth:`save` wrote.

        Args:
            path: file to read.
            item_tokens: item tokens by internal id; rows are arranged in this order. Items of
                the file that are not among them are left out.

        Raises:
            ConfigError: unreadable file, contents that are not those of its hash, or items without
                a SID (how many, which first).
        """
        try:
            arrays = load_npz(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a SID table of this library: {error}") from error
        require(arrays, _ARRAYS, path, REMEDY)
        with taking("text", path, REMEDY):
            changed = "hash" in arrays and text(arrays.pop("hash")) != _hash(arrays)
            meta, stored = json.loads(text(arrays["meta"])), None
            if "item_tokens" in arrays:
                stored = text(arrays["item_tokens"]).split("\0")
        require(meta, META, path, REMEDY, "meta")
        codes = torch.from_numpy(arrays["codes"].astype(np.int64))
        sizes = arrays["sizes"].tolist()
        if changed:
            raise ConfigError(
                f"SID file {path} was changed after it was written: its contents do not have the "
                "hash saved with them; write it again with python -m recbole_gr.tokenize"
            )
        named(path, lambda: check_codebooks(sizes, len(codes)))
        if item_tokens is not None:
            codes = codes[rows_of(path, stored, len(codes), item_tokens)]
        return named(path, lambda: cls.from_item_codes(codes, sizes, meta))


def check_codebooks(sizes: Sequence[int], n_items: int) -> None:
    """See that codebooks that a file states, or that follow from its codes, are no mistake.

    A model holds a vector for each code, so a single code of a billion would take all memory.

    Args:
        sizes: codebook size of each level.
        n_items: items of the file.

    Raises:
        ConfigError: more codes than any tokenizer gives so many items, or far too many levels.
    """
    most = max(LEAST_LARGE, n_items)
    if not 0 < len(sizes) <= MOST_LEVELS:
        raise ConfigError(f"SIDs have {len(sizes)} levels, and at most {MOST_LEVELS} are read")
    for level, size in enumerate(sizes, 1):
        if not 0 < size <= most:
            raise ConfigError(
                f"level {level} has codes up to {size - 1}, a codebook of {size}; at most {most} "
                f"codes are read for {n_items} items. Number the codes of each level from 0, "
                "without gaps"
            )


def _are_integers(array: np.ndarray, dim: int) -> bool:
    return array.ndim == dim and array.size > 0 and bool(np.issubdtype(array.dtype, np.integer))


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (hexadecimal) of arrays by name."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name}:{array.dtype}{array.shape}:".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def check_codes(item_codes: torch.Tensor, sizes: Sequence[int]) -> None:
    """Raise ConfigError unless ``0 <= item_codes[:, l] < sizes[l]``; row 0 is item id 1."""
    limits = torch.tensor(sizes, device=item_codes.device)
    bad = (item_codes < 0) | (item_codes >= limits)
    if bool(bad.any()):
        row, level = (int(index) for index in bad.nonzero()[0])
        raise ConfigError(
            f"{int(bad.any(1).sum())} items have SID codes outside their codebook, first item id "
            f"{row + 1}: code {int(item_codes[row, level])} at level {level + 1} of size "
            f"{sizes[level]}; codes count from 0"
        )


def named(path: str | Path, build: Callable[[], _Built]) -> _Built:
    """Run ``build`` and put the file's name before the message of a ConfigError."""
    try:
        return build()
    except ConfigError as error:
        raise ConfigError(f"SID file {path}: {error}") from error
