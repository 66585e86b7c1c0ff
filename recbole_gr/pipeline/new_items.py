"""SIDs for items that come after a table was made, from their content alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.data.encoder import encoded_texts
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.sids import tokenizer_file
from recbole_gr.registry import TOKENIZERS, get_tokenizer
from recbole_gr.sid.reassign import reassign
from recbole_gr.sid.table import SIDTable

if TYPE_CHECKING:
    from recbole_gr.config import Settings
    from recbole_gr.tokenizer.base import Tokenizer


def fitted_state(config: Settings, table: SIDTable, model: Any) -> dict[str, Any] | None:
    """The fitted tokenizer beside the table of a run, as plain data for the model's checkpoints.

    Args:
        config: RecBole's ``Config``: ``sid_file``, ``sid_dir``.
        table: of :func:`~recbole_gr.pipeline.sids.prepare_sid`.
        model: what is trained.

    Returns:
        dict: for :meth:`~recbole_gr.tokenizer.base.Tokenizer.of_state`; None where there is none
        beside it, or the model codes new items itself.
    """
    path = _table_path(config, table)
    if model.tokenizes_items or path is None or not tokenizer_file(path).is_file():
        return None
    try:
        return torch.load(tokenizer_file(path), map_location="cpu", weights_only=True)
    except Exception:  # of another program, or cut: the run itself does without
        return None


def _table_path(config: Settings, table: SIDTable) -> Path | None:
    if config["sid_file"]:
        return Path(config["sid_file"])
    name = table.meta.get("file")
    return Path(config["sid_dir"], name) if name else None


def kept_tokenizer(
    config: Settings,
    table: SIDTable,
    item_tokens: Sequence[str],
    state: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """The fitted tokenizer of the SIDs that a model was trained with.

    Args:
        config: RecBole's ``Config``: ``sid_file``, ``sid_dir``, ``tokenizer``.
        table: the model's SIDTable; items that were added later come last.
        item_tokens: item tokens by internal id, of the items of the training.
        state: of :func:`fitted_state`, from the checkpoint; None in those of the first versions, of
            which the tokenizer beside the table is taken.

    Raises:
        ConfigError: there is none, or the table beside it is another one.
    """
    made_by = table.meta.get("tokenizer")
    made_by = made_by if made_by in TOKENIZERS else config["tokenizer"]
    if state is not None:
        return get_tokenizer(made_by).of_state(state)
    path = _table_path(config, table)
    if path is None or not tokenizer_file(path).is_file():
        raise ConfigError(
            "new items need the fitted tokenizer of the model's SIDs, which is not there"
            + (f": {tokenizer_file(path)}" if path else "")
            + "; set sid_dir to the folder where the SIDs of its training were kept. SIDs that "
            "came from a plain file have no tokenizer"
        )
    levels = table.content_levels
    kept = SIDTable.load(path, item_tokens)
    if not torch.equal(kept.codes[1:, :levels], table.codes[1 : len(item_tokens), :levels]):
        raise ConfigError(f"the SIDs in {path} are not those that the model was trained with")
    return get_tokenizer(made_by).load(tokenizer_file(path))


def new_item_codes(tokenizer: Tokenizer, table: SIDTable, content: torch.Tensor) -> torch.Tensor:
    """SIDs of new items that no item has, new or old.

    The tokenizer gives the codes of its own levels. A suffix is the least one that is free, as the
    old items are numbered; under the policy ``share`` none is needed. The old items keep theirs.

    Args:
        tokenizer: of :func:`kept_tokenizer`.
        table: SIDTable of the old items.
        content: float tensor ``[n, d]`` of the new ones, of the kind that it has learned.

    Returns:
        LongTensor ``[n, L]``.

    Raises:
        ConfigError: content of another width, or SIDs that are taken and cannot be told apart by
            the model's codebooks.
    """
    levels, old = table.content_levels, table.codes[1:].cpu()
    codes = tokenizer.encode(content.float()).cpu()
    if table.n_levels == levels + 1:
        raw = torch.cat([old[:, :levels], codes])
        numbering = table.meta.get("options", {}).get("suffix_numbering")
        together = reassign(raw, old, table.sizes[:levels], keep_depth=0, numbering=numbering)
        codes = together[0][len(old) :]
        full = codes[:, -1] >= table.sizes[-1]
        if bool(full.any()):
            raise ConfigError(
                f"{int(full.sum())} of {len(codes)} new items share the codes of more items than "
                f"the model has suffixes ({table.sizes[-1]}), the first is number "
                f"{int(full.nonzero()[0]) + 1}; tokenize and train again with them"
            )
    elif table.meta.get("options", {}).get("collision") != "share":
        n_before, n_now = (len(rows.unique(dim=0)) for rows in (old, torch.cat([old, codes])))
        if n_now - n_before < len(codes):
            raise ConfigError(
                "new items fall on SIDs that are taken, and no suffix tells them apart "
                "(collision); tokenize and train again with them"
            )
    return codes


def content_rows(
    content: Mapping[str, Any],
    encoder: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> torch.Tensor:
    """Content ``[n, d]`` of new items from vectors or texts by token.

    Args:
        content: a vector, a text, or texts by column, by item token.
        encoder, device: what makes vectors of texts, see
            :func:`recbole_gr.data.encoder.encoded_texts`.

    Raises:
        ConfigError: none, texts that cannot be encoded, or vectors of different lengths or not
            finite.
    """
    if not content:
        raise ConfigError("new items: none are given")
    texts = {token: given for token, given in content.items() if isinstance(given, (str, Mapping))}
    encoded = dict(zip(texts, encoded_texts(encoder, texts, device))) if texts else {}
    rows = {token: _row(token, encoded.get(token, given)) for token, given in content.items()}
    width = _width(encoder) or len(next(iter(rows.values())))
    for token, row in rows.items():
        if len(row) != width or not math.isfinite(float(row.sum())):
            raise ConfigError(
                f"new items: the content of {token!r} must be {width} finite numbers, as that of "
                f"the others; it has {len(row)}"
            )
    return torch.stack(list(rows.values()))


def _width(encoder: Mapping[str, Any] | None) -> int | None:
    """Numbers in the content of the training, where a checkpoint tells."""
    if encoder is None or not {"dim", "components"} & set(encoder):
        return None
    return encoder["dim"] if "dim" in encoder else len(encoder["components"])


def _row(token: str, vector: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(vector).detach().float().cpu().flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"new items: the content of {token!r} is {vector!r:.100}; give its text, a dict of its "
            "text columns, or a vector of numbers"
        ) from error
