"""What a walk through SIDs shows, as plain arrays in one file beside the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.quality.cohesion import unit
from recbole_gr.quality.neighbours import most_cooccurring, near_content
from recbole_gr.quality.semantics import cohesion_of_prefixes
from recbole_gr.sid.formats import text, text_array, tokens_without_padding
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.files import atomic_write
from recbole_gr.untrusted.archives import load_npz
from recbole_gr.untrusted.shapes import Rule, at_least, require, require_version, taking

if TYPE_CHECKING:
    from recbole_gr.quality.assessment import Behaviour

FORMAT_VERSION = 1
NEIGHBOURS = 10  # of each item, by content and in histories
MOST_ITEMS = 2**18  # of a page, whose data a browser holds
MOST = 2**31 - 1  # of a code or a count
WHOLE = 10_000  # cosines are kept as integers, of so many to one
_REMEDY = "Write it again with python -m recbole_gr.tokenize."
_ABOUT = {
    "format_version": int, "name": str, "sizes": [at_least(1)],
    "content_levels": at_least(1), "versions": [str],
}  # fmt: skip
_TEXT = Rule("an array of bytes", lambda value: value.dtype == np.uint8 and value.ndim == 1)


def _integers(dim: int, rows: int | None, most: int) -> Rule:
    """Integers from -1 (cosines: -`most`) to `most`, for so many rows."""
    least = -WHOLE if most == WHOLE else -1
    return Rule(
        f"integers from {least} to {most} in {dim} dimensions"
        + (f", {rows} of them" if rows is not None else ""),
        lambda value: (
            value.ndim == dim
            and bool(np.issubdtype(value.dtype, np.integer))
            and rows in (None, len(value))
            and (not value.size or (least <= value.min() and value.max() <= most))
        ),
    )


_OF_ITEMS: dict[str, Callable[[int], Rule]] = {
    "counts": lambda n: _integers(1, n, MOST),
    "near": lambda n: _integers(2, n, n - 1),
    "cosine": lambda n: _integers(2, n, WHOLE),
    "beside": lambda n: _integers(2, n, n - 1),
    "times": lambda n: _integers(2, n, MOST),
}


@dataclass(frozen=True, eq=False)
class Walk:
    """A table of SIDs with what is known of its items; row ``i`` belongs to item id ``i + 1``.

    Attributes:
        name: of the tokenizer, or of what made the table.
        tokens: names of the items.
        titles: of the items, "" where one has none.
        codes: integers ``[n, L]``.
        sizes: codebook size of each level.
        content_levels: levels before the suffix of a collision policy.
        counts: ``[n]`` training interactions; None where they are not known.
        near, cosine: ``[n, k]`` rows of the items of the most similar content (-1 for none), and
            their cosines in parts of ``WHOLE``; None without content.
        beside, times: ``[n, k]`` rows of the items that most often stand next to it in training
            histories (-1 for none), and how often; None without histories.
        cohesion: per level the mean cosine, in parts of ``WHOLE``, of two items of each prefix of
            two items or more, in the order of their codes; no levels without content.
        versions: earlier or later SIDs by name, in time, ``[n, any levels]``; -1 for items without.
    """

    name: str
    tokens: list[str]
    titles: list[str]
    codes: np.ndarray
    sizes: tuple[int, ...]
    content_levels: int
    counts: np.ndarray | None = None
    near: np.ndarray | None = None
    cosine: np.ndarray | None = None
    beside: np.ndarray | None = None
    times: np.ndarray | None = None
    cohesion: list[np.ndarray] = field(default_factory=list)
    versions: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def table(self) -> SIDTable:
        """The SIDs as a table."""
        codes, meta = torch.from_numpy(self.codes.astype(np.int64)), {}
        if self.content_levels < len(self.sizes):
            meta["content_levels"] = self.content_levels
        return SIDTable.from_item_codes(codes, self.sizes, meta)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name, of numbers and of bytes of text."""
        about = {
            "format_version": FORMAT_VERSION, "name": self.name, "sizes": list(self.sizes),
            "content_levels": self.content_levels, "versions": list(self.versions),
        }  # fmt: skip
        arrays = {"about": text_array(json.dumps(about)), "codes": self.codes}
        arrays["tokens"] = text_array("\0".join(self.tokens))
        arrays["titles"] = text_array("\0".join(self.titles))
        arrays |= {n: a for n in _OF_ITEMS if (a := getattr(self, n)) is not None}
        arrays |= {f"cohesion_{level}": a for level, a in enumerate(self.cohesion)}
        arrays |= {f"version_{place}": a for place, a in enumerate(self.versions.values())}
        return arrays

    def save(self, path: str | Path) -> None:
        """Write its arrays to one ``.npz`` file, without pickle."""
        arrays: dict[str, Any] = self.arrays()
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Walk:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: it is no such file, or its parts do not fit each other.
        """
        try:
            arrays = load_npz(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"'{path}' is no walk through SIDs: {error}. {_REMEDY}") from error
        require(arrays, {name: _TEXT for name in ("about", "tokens", "titles")}, path, _REMEDY)
        with taking("text", path, _REMEDY):
            about = json.loads(text(arrays["about"]))
            tokens, titles = (text(arrays[name]).split("\0") for name in ("tokens", "titles"))
        require(about, _ABOUT, path, _REMEDY, "about")
        require_version(about["format_version"], FORMAT_VERSION, path)
        n, names = len(tokens), [f"version_{place}" for place in range(len(about["versions"]))]
        depths = about["content_levels"] if "cohesion_0" in arrays else 0
        levels = [f"cohesion_{level}" for level in range(depths)]
        require(arrays, {name: _integers(2, n, MOST) for name in ("codes", *names)}, path, _REMEDY)
        require(arrays, {f"{name}?": rule(n) for name, rule in _OF_ITEMS.items()}, path, _REMEDY)
        require(arrays, {name: _integers(1, None, WHOLE) for name in levels}, path, _REMEDY)
        if len(titles) != n or about["content_levels"] > len(about["sizes"]):
            raise ConfigError(f"'{path}': its parts are not of the same items. {_REMEDY}")
        walk = cls(
            about["name"], tokens, titles, arrays["codes"], tuple(about["sizes"]),
            about["content_levels"], **{name: arrays.get(name) for name in _OF_ITEMS},
            cohesion=[arrays[name] for name in levels],
            versions=dict(zip(about["versions"], (arrays[name] for name in names))),
        )  # fmt: skip
        with taking("codes", path, _REMEDY):
            walk.table  # noqa: B018  checks them
        return walk


def gathered(
    name: str,
    table: SIDTable,
    item_tokens: Sequence[str],
    titles: Mapping[str, str] | None = None,
    content: torch.Tensor | None = None,
    behaviour: Behaviour | None = None,
    content_levels: int | None = None,
    versions: Mapping[str, torch.Tensor] | None = None,
    neighbours: int = NEIGHBOURS,
) -> Walk:
    """What is known of the items of a table, for a page.

    Args:
        name: of what made the SIDs.
        table: of all items.
        item_tokens: names by item id, padding first.
        titles: by name, of those that have one.
        content: float tensor ``[n_items, d]``; row 0 is padding and not read.
        behaviour: what training interactions tell of the items.
        content_levels: levels before a suffix, where the table does not say.
        versions: the SIDs of before, and after, by name: ``[items, levels]`` by item id from 1 on,
            of the first items where there were fewer.
        neighbours: of each item, at most.

    Returns:
        Walk
    """
    tokens = tokens_without_padding(item_tokens, table.n_items)
    codes, n = table.codes[1:].cpu(), table.n_items - 1
    levels = content_levels or table.content_levels
    queries, k = torch.arange(n), min(neighbours, n - 1)
    parts: dict[str, Any] = {}
    if content is not None:
        items = content[1:].cpu()
        near = near_content(items, k)
        values = cohesion_of_prefixes(codes[:, :levels], lambda rows: items[rows])
        parts["near"], parts["cosine"] = _small(near), _of_whole(_cosines(items, near))
        parts["cohesion"] = [_of_whole(of_level) for of_level in values]
    if behaviour is not None:
        parts["counts"] = _small(behaviour.counts)
        if behaviour.pairs is not None:
            beside, times = most_cooccurring(behaviour.pairs, n, queries, k)
            parts["beside"], parts["times"] = _small(beside), _small(times)
    known = {token: " ".join(str(title).split()) for token, title in (titles or {}).items()}
    return Walk(
        name, tokens, [known.get(token, "").replace("\0", "") for token in tokens], _small(codes),
        table.sizes, levels, **parts,
        versions={v: _filled(c, n) for v, c in (versions or {}).items()},
    )  # fmt: skip


def _cosines(items: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """``[n, k]`` cosines with the neighbours; 0 where there is none."""
    found = torch.zeros(near.shape)
    for rows in torch.arange(len(items)).split(4096):
        own, others = unit(items[rows].float()), items[near[rows].clamp(min=0)].float()
        others = unit(others.flatten(0, 1)).view_as(others)  # [b, k, d]
        found[rows] = (others @ own.unsqueeze(2)).squeeze(2)
    return found.masked_fill(near < 0, 0.0)


def _of_whole(cosines: torch.Tensor) -> np.ndarray:
    return (cosines.clamp(-1, 1) * WHOLE).round().numpy().astype(np.int16)


def _small(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.int32)


def _filled(codes: torch.Tensor, n: int) -> np.ndarray:
    """Codes of all items, -1 for those that were not there yet."""
    whole = np.full((n, codes.shape[1]), -1, np.int32)
    whole[: len(codes)] = _small(codes[:n])
    return whole
