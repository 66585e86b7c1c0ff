"""The base class of tokenizers: content in, SIDs out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recbole_gr.compat.repeatable import repeatable
from recbole_gr.config.layers import class_defaults
from recbole_gr.config.user_settings import options_of
from recbole_gr.errors import ConfigError
from recbole_gr.quality.measures import collision_figures
from recbole_gr.sid.collision import resolve
from recbole_gr.sid.sizes import codebook_sizes, log_reduced, reduced_sizes
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.hashes import hash_of
from recbole_gr.tokenizer.fitting import Figures, FitReport, Signals, checked
from recbole_gr.untrusted.archives import check_archive, load_tensors
from recbole_gr.untrusted.shapes import at_least, require, taking, within

if TYPE_CHECKING:
    from typing import Self

    from recbole_gr.config import Settings

REMEDY = "Remove it, and the tokenizer is fitted again."
#: What a saved tokenizer holds.
SAVED = {
    "tokenizer": str,
    "dim": at_least(1),
    "sizes": [at_least(1)],
    "options": dict,
    "state_dict": {...: torch.Tensor},
    "hash?": str,
}
_CHUNK_VALUES = 2**24  # float64 values of content and distances held at once while encoding


class Tokenizer(nn.Module):
    """Learns SIDs from item content.

    A subclass implements :meth:`build`, :meth:`fit_content`, :meth:`encode_batch` and
    :meth:`last_level_batch`; this class checks the input, bounds the memory, seeds, saves and
    applies the collision policy. Its keys and defaults are ``properties/tokenizer/<Class>.yaml``, a
    class from outside has them in the attribute ``default_config``; where a key is left out, the
    base class's default holds.

    Args:
        config: RecBole's ``Config`` or a dictionary; a key that is missing or None takes the
            default. ``tokenizer_seed`` defaults to ``seed``.
        dim: length of the content vectors.

    Attributes:
        options: the tokenizer's configuration, plain values.
        sizes: codebook size of each level, before a collision policy.
        seed: of everything random in the tokenizer.

    Raises:
        ConfigError: a value that cannot be used.
    """

    signals: tuple[str, ...] = ()  # names of the signals that fit() needs (pipeline.signals)
    without: tuple[str, ...] = ()  # options of the base class that it has no use for
    streams = False  # whether fit_content() moves batches of content to the device by itself
    fine_tunes = False  # whether fine_tune() goes on learning in a later period
    imitates = False  # whether fit_codes() starts from SIDs that exist already
    follows_drift = False  # whether fit_continual() and drift_confidence() see drift
    #: What helps against collapsed SIDs: (key, values of it that harm, what to do).
    advice: tuple[tuple[str, tuple[Any, ...], str], ...] = ()

    def __init__(self, config: Settings, dim: int) -> None:
        super().__init__()
        self.options = options_of(config, *class_defaults(type(self), "tokenizer"))
        self.seed: int = self.options["tokenizer_seed"]
        self.dim = int(dim)
        self.sizes = codebook_sizes(self.options["codebook_size"], self.options["sid_levels"])
        self._build()

    @classmethod
    def default_options(cls) -> dict[str, Any]:
        """All keys of this tokenizer with their defaults, those of its base classes included."""
        return class_defaults(cls, "tokenizer")[0]

    # What subclasses implement

    def build(self) -> None:
        """Create parameters and buffers for ``self.sizes``; called again if these change."""
        raise NotImplementedError

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        """Learn from checked content ``[n, d]`` (float32); returns ``(figures, history)``."""
        raise NotImplementedError

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        """Codes ``[n, L]`` of a batch of content ``[n, d]``, independent of the batch."""
        raise NotImplementedError

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances ``[n, sizes[-1]]`` to the last level's codes, given the codes before it."""
        raise NotImplementedError

    def codewords(self) -> list[torch.Tensor] | None:
        """Codewords of each level, ``L`` tensors ``[sizes[l], e]``; None if there are none."""
        books = getattr(self, "codebooks", None)
        return None if books is None else [book.detach() for book in books]

    def quantized_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """What the codes ``[n, L]`` stand for, ``[n, e]``: by default the sum of codewords."""
        words = zip(self.codewords() or (), codes.unbind(1))
        return reduce(torch.add, (book[code] for book, code in words))

    # What users call

    def fit(
        self, content: torch.Tensor, *, signals: Signals | None = None, progress: bool = True
    ) -> FitReport:
        """Learn the codebooks from item content.

        Two fits of new tokenizers with the same seed, data, machine and thread count give the same
        codes; torch's global random state is left as it was.

        Args:
            content: float tensor ``[n, d]``, one row per item, no padding row.
            signals: further per-item signals that some tokenizers use, by name.
            progress: show a progress bar.

        Raises:
            ConfigError: content of wrong shape, or with NaN or infinity.
        """
        content = checked(content, self.dim)
        if not self.streams:
            content = content.to(self.device)
            signals = {name: signal.to(self.device) for name, signal in (signals or {}).items()}
        started = time.perf_counter()
        self._shrink(len(content))
        with self.seeded():
            figures, history = self.fit_content(content, signals, progress)
        seconds = time.perf_counter() - started
        return FitReport(type(self).__name__, len(content), self.sizes, seconds, figures, history)

    @torch.no_grad()
    def encode(self, content: torch.Tensor) -> torch.Tensor:
        """Codes of items, before any collision policy.

        Args:
            content: float tensor ``[n, d]``.

        Returns:
            LongTensor ``[n, L]`` on the device of ``content``. No state changes, and an item's
            codes do not depend on the other rows.
        """
        content = checked(content, self.dim)
        parts = content.split(self._rows_per_chunk())
        codes = [self.encode_batch(part.to(self.device)).to(content.device) for part in parts]
        return torch.cat(codes) if codes else content.new_zeros((0, len(self.sizes))).long()

    @torch.no_grad()
    def last_level_distances(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances of items to the codes of the last level, given their codes before it.

        Args:
            content: float tensor ``[n, d]``.
            codes: LongTensor ``[n, L]``; the last column is not used.

        Returns:
            float tensor ``[n, sizes[-1]]`` on the device of ``content``.
        """
        content = checked(content, self.dim)
        rows = self._rows_per_chunk()
        parts = [
            self.last_level_batch(part.to(self.device), code.to(self.device)).to(content.device)
            for part, code in zip(content.split(rows), codes.split(rows))
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def quantized(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Quantised vectors ``[n, e]`` of items with the given codes ``[n, L]``."""
        return self.quantized_batch(content.float().to(self.device), codes.to(self.device))

    def tokenize(self, content: torch.Tensor) -> SIDTable:
        """SIDs of a catalogue: :meth:`encode`, then the collision policy ``collision``.

        Args:
            content: float tensor ``[n_items, d]``; row 0 is the padding item and is not read.

        Returns:
            SIDTable; its meta holds the options and the collisions before the policy.
        """
        items = content[1:]
        codes = self.encode(items)
        before = collision_figures(codes, self.sizes)
        codes, sizes = resolve(
            codes,
            self.sizes,
            self.options["collision"],
            last_level_distances=lambda rows: self.last_level_distances(items[rows], codes[rows]),
            epsilon=self.options["sinkhorn_epsilon"],
            iterations=self.options["sinkhorn_iterations"],
            numbering=self.options["suffix_numbering"],
            suffix_size=self.options["suffix_size"],
        )
        meta = {
            "tokenizer": type(self).__name__,
            "options": dict(self.options),
            "seed": self.seed,
            "content_levels": len(self.sizes),
            "before_policy": before,
        }
        return SIDTable.from_item_codes(codes.cpu(), sizes, meta)

    def save(self, path: str | Path) -> None:
        """Write options and weights, with their hash, to one file, without pickled objects."""
        weights = {name: value.cpu() for name, value in self.state_dict().items()}
        state = {
            "tokenizer": type(self).__name__,
            "dim": self.dim,
            "sizes": list(self.sizes),
            "options": self.options,
            "state_dict": weights,
            "hash": hash_of(weights),
        }
        # UserSettings a path, torch keeps to itself why the system would not write.
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tokenizer of this class that :meth:`save` wrote; on the CPU.

        Raises:
            ConfigError: the file is of another tokenizer, was changed, or is no tokenizer at all.
        """
        try:
            check_archive(path)
            state = load_tensors(path, "cpu")
        except Exception as error:
            raise ConfigError(f"{path} is not a saved tokenizer: {error}. {REMEDY}") from error
        require(state, SAVED, path, REMEDY)
        name, weights = state["tokenizer"], state["state_dict"]
        if name != cls.__name__:
            raise ConfigError(f"{path} holds a tokenizer of type {name}, not {cls.__name__}")
        if state.get("hash", own := hash_of(weights)) != own:  # the first versions kept none
            raise ConfigError(f"{path} was changed: its weights do not have the hash in it")
        most = max((weight.numel() for weight in weights.values()), default=0)
        require([state["dim"], *state["sizes"]], [within(most)], path, REMEDY, "dim and sizes")
        with taking("dim, sizes, options and weights", path, REMEDY):
            return cls.of_state(state)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """The tokenizer, on the CPU, whose options and weights :meth:`save` wrote."""
        tokenizer = cls(state["options"], state["dim"])
        tokenizer._resize(state["sizes"])
        tokenizer.load_state_dict(state["state_dict"])
        return tokenizer

    @property
    def device(self) -> torch.device:
        """Device of the tokenizer's weights."""
        return next(iter(self.state_dict().values())).device

    # Helpers for subclasses

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Inside the block torch draws from the tokenizer's seed, and adds up in a fixed order."""
        # Named, or torch warns where there are several.
        devices = range(torch.cuda.device_count())
        weights = self.state_dict().values()  # none before build()
        device = self.device if weights else "cpu"
        with torch.random.fork_rng(devices=devices), repeatable(device):
            torch.manual_seed(self.seed)
            yield

    def _build(self) -> None:
        with self.seeded():
            self.build()

    def _resize(self, sizes: Sequence[int]) -> None:
        if tuple(sizes) != self.sizes:
            device, self.sizes = self.device, tuple(sizes)
            self._build()
            self.to(device)

    def _shrink(self, n_items: int) -> None:
        sizes = self.sizes_for(n_items)
        if sizes != self.sizes:
            log_reduced(self.options["codebook_size"], self.sizes, sizes, n_items)
            self._resize(sizes)

    def sizes_for(self, n_items: int) -> tuple[int, ...]:
        """Codebook sizes to use for ``n_items`` items: none larger than the catalogue."""
        return reduced_sizes(self.options["codebook_size"], self.sizes, n_items)

    def _rows_per_chunk(self) -> int:
        return max(1, _CHUNK_VALUES // max(self.dim, *self.sizes))
