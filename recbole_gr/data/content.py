"""Item content: one vector per item, from whatever a data set offers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from recbole_gr.compat import installed
from recbole_gr.data import tfidf as text
from recbole_gr.data.atomic import atomic_path
from recbole_gr.data.content_cache import cache_folder, cached_vectors
from recbole_gr.data.encoder import kept_encoder
from recbole_gr.data.item_file import ItemFile
from recbole_gr.data.vector_files import check_finite, rows_or_warn, vectors_of_file, warn_missing
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint
from recbole_gr.storage.hashes import digest_of, folder_sha256

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

    from recbole_gr.config import Config
    from recbole_gr.data.dataset import GenerativeDataset

#: Vectors, their digest, and an encoder of texts (None where they are not made of texts).
Made: TypeAlias = tuple[np.ndarray, str, "dict[str, Any] | None"]
CHECKED = 100  # items by which a kept encoder is held against the vectors beside it
SOURCES = ("embedding", "preload", "sentence", "text", "collaborative")


@dataclass(frozen=True)
class ItemContent:
    """Vectors of all items of a data set.

    Attributes:
        vectors (FloatTensor): [n_items, d]; row i belongs to RecBole's item id i, row 0 (padding)
            is zero, and so are the rows of items about which nothing is known.
        source (str): which of `SOURCES` they come from.
        digest (str): sha256 of the vectors themselves, with source and items.
        item_tokens (list[str]): [n_items] the data set's own names of the items, "[PAD]" first.
        encoder (dict | None): plain data by which vectors of items that come later can be made, see
            :func:`~recbole_gr.data.encoder.encoded_texts`: `source`, and for texts what encodes
            them, else `dim`.
    """

    vectors: torch.Tensor
    source: str
    digest: str
    item_tokens: list
    encoder: dict[str, Any] | None = None


def item_content(config: Config, dataset: GenerativeDataset) -> ItemContent:
    """Content vectors by `item_content` of the configuration.

    - `embedding`: a `.npy` file whose row i belongs to the i-th data line of `.item`.
    - `preload`: a feature field preloaded by RecBole (`additional_feat_suffix`, `preload_weight`).
    - `sentence`: a sentence encoder on the text fields (optional dependency).
    - `text`: TF-IDF and truncated SVD of the text fields.
    - `collaborative`: truncated SVD of the training interactions.
    - `auto`: the first that the data set offers of embedding, preload (with `content_field`), text
      and collaborative.

    What takes time to compute is kept in `content_cache_dir`, named by the hash of its inputs and
    with its own hash inside: a file that was changed is made again.

    Args:
        config (Config): the configuration of a run.
        dataset (SequentialDataset): the training split, so that `collaborative` sees nothing else.

    Returns:
        ItemContent: vectors of all `dataset.item_num` items.

    Raises:
        ConfigError: unknown source, missing or misshapen files, values that are not finite.
    """
    source = content_source(config, dataset)
    if source == "collaborative" and (config["item_content"] or "auto") == "auto":
        getLogger().warning(
            "%s has no usable item text and no content file: item content is made from the "
            "training interactions (item_content: collaborative)", config["dataset"],
        )  # fmt: skip
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    make = {
        "embedding": _embedding,
        "preload": _preload,
        "sentence": _sentence,
        "text": _text,
        "collaborative": _collaborative,
    }[source]
    vectors, digest, encoder = make(config, dataset, tokens)
    check_finite(vectors, tokens, source)
    n_zero = int((~vectors[1:].any(axis=1)).sum())
    getLogger().info(
        "Item content: %s, %d items x %d dimensions%s",
        source,
        len(tokens) - 1,
        vectors.shape[1],
        f", {n_zero} of them without content (zero vectors)" if n_zero else "",
    )
    encoder = encoder or {"source": source, "dim": vectors.shape[1]}
    return ItemContent(torch.from_numpy(vectors), source, digest, tokens, encoder)


def content_source(config: Config, dataset: GenerativeDataset) -> str:
    """Which of `SOURCES` :func:`item_content` would take."""
    kind = config["item_content"] or "auto"
    return _auto_source(config, dataset) if kind == "auto" else kind


def _auto_source(config: Config, dataset: GenerativeDataset) -> str:
    if config["content_file"] or os.path.isfile(_default_content_file(config)):
        return "embedding"
    if config["content_field"]:
        return "preload"
    if os.path.isfile(atomic_path(config, "item")):
        item_file = ItemFile(config)
        fields, _ = text.choose_text_fields(item_file, config["text_fields"])
        rows = item_file.rows_of(dataset.field2id_token[dataset.iid_field][1:])
        if text.enough_text(item_file, fields, rows):
            return "text"
    return "collaborative"


def _default_content_file(config: Config) -> str:
    return atomic_path(config, "itememb.npy")


def _embedding(config: Config, dataset: GenerativeDataset, tokens: list[str]) -> Made:
    path = config["content_file"] or _default_content_file(config)
    vectors = vectors_of_file(config, tokens, path, "content_file")
    return vectors, digest_of("embedding", tokens, vectors), None


def _preload(config: Config, dataset: GenerativeDataset, tokens: list[str]) -> Made:
    fields = config["preload_weight"] or {}
    wanted = config["content_field"] or (list(fields.values())[0] if len(fields) == 1 else None)
    id_field = next((key for key, value in fields.items() if wanted in (key, value)), None)
    if id_field is None:
        raise ConfigError(
            f"item_content=preload: content_field={wanted!r} is not in preload_weight={fields}; "
            "set preload_weight to {id field: vector field} of a file in additional_feat_suffix "
            "and content_field to the vector field"
        )
    weights = np.asarray(dataset.get_preload_weight(id_field), dtype=np.float32)
    weights = weights.reshape(len(weights), -1)
    # By token: the id field has ids of its own unless alias_of_item_id names it.
    ids = dataset.field2token_id[id_field]
    rows = np.array([ids.get(token, -1) for token in tokens])
    rows[0] = -1
    vectors = np.where(rows[:, None] >= 0, weights[rows], np.float32(0))
    warn_missing(rows[1:], f"the preloaded field {wanted!r}")
    return vectors, digest_of("preload", tokens, vectors), None


def _text(config: Config, dataset: GenerativeDataset, tokens: list[str]) -> Made:
    item_file, fields, rows = _text_columns(config, tokens)
    terms = text.item_terms(item_file, fields, rows[1:])
    _require_text(terms, item_file, fields)
    dim, seed = config["content_dim"] or 128, config["seed"] or 0
    joined = "\x1e".join("\x1f".join(t) for t in terms)
    inputs = digest_of("text", tokens, joined, dim, seed, text.SVD)
    file = Path(cache_folder(config), f"{config['dataset']}-text-{inputs[:16]}.encoder.pth")

    def compute() -> np.ndarray:
        vectors, tfidf = text.tfidf_vectors(terms, dim, seed)
        save_checkpoint(file, {"encoder": tfidf.plain()})
        return _with_padding(vectors)

    vectors, digest = cached_vectors(config, "text", inputs, tokens, compute)
    tfidf = _kept_tfidf(file, terms, vectors)
    if tfidf is None:  # vectors of an earlier version, or the file was lost
        compute()
        tfidf = _kept_tfidf(file, terms, vectors)
    if tfidf is None:
        getLogger().warning(
            "the vectors of texts that are kept in %s were made elsewhere and cannot be made again "
            "here: items that are added to the trained model need vectors. Remove them to have "
            "them made again", file.parent,
        )  # fmt: skip
        return vectors, digest, None
    return vectors, digest, kept_encoder("text", item_file, fields, **tfidf)


def _kept_tfidf(file: Path, terms: list[list[str]], vectors: np.ndarray) -> dict[str, Any] | None:
    """The encoder in a file, if that is whole and gives the `vectors` that are kept beside it."""
    try:
        plain = load_checkpoint(file, map_location="cpu")["encoder"]
        some = np.linspace(0, len(terms) - 1, min(len(terms), CHECKED)).astype(int)
        again = text.Tfidf.of(plain).vectors([terms[row] for row in some])
    except (ConfigError, KeyError, IndexError, ValueError):
        return None
    same = again.shape[1] == vectors.shape[1] and np.allclose(again, vectors[some + 1], atol=1e-5)
    return plain if same else None


def _sentence(config: Config, dataset: GenerativeDataset, tokens: list[str]) -> Made:
    item_file, fields, rows = _text_columns(config, tokens)
    texts = text.item_sentences(item_file, fields, rows[1:])
    _require_text(texts, item_file, fields)
    encoder = config["text_encoder"]
    # Of an encoder in a folder its files count, which another training may have replaced.
    by = folder_sha256(encoder) if encoder and os.path.isdir(encoder) else encoder
    inputs = digest_of("sentence", tokens, "\x1e".join(texts), by, str(installed(*text.ENCODERS)))
    device = str(config["device"]) if config["device"] is not None else None
    vectors, digest = cached_vectors(
        config,
        "sentence",
        inputs,
        tokens,
        lambda: _with_padding(
            text.sentence_vectors(texts, encoder, device, config["show_progress"])
        ),
    )
    return vectors, digest, kept_encoder("sentence", item_file, fields, text_encoder=encoder)


def _with_padding(vectors: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


def _text_columns(config: Config, tokens: Sequence[str]) -> tuple[ItemFile, list[str], np.ndarray]:
    item_file = ItemFile(config)
    fields, ids = text.choose_text_fields(item_file, config["text_fields"])
    getLogger().info(
        "Text fields: %s%s", fields, f"; taken for ids and left out: {ids}" if ids else ""
    )
    return item_file, fields, rows_or_warn(item_file, tokens)


def _require_text(
    texts: Sequence[str] | Sequence[list[str]], item_file: ItemFile, fields: list[str]
) -> None:
    if not any(texts):
        raise ConfigError(
            f"{item_file.path} has no text in the columns {fields} (all columns: "
            f"{list(item_file.columns)}); name some as text_fields or set "
            "item_content=collaborative"
        )


def _collaborative(config: Config, dataset: GenerativeDataset, tokens: list[str]) -> Made:
    """Items in the space of the users that have them: SVD of the degree-normalised matrix."""
    dim, seed = config["content_dim"] or 128, config["seed"] or 0
    matrix = dataset.inter_matrix(form="csr").T.tocsr().astype(np.float64)  # (n_items, n_users)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0  # an item counts once for a user, however often it was taken
    inputs = digest_of("collaborative", tokens, matrix.indptr, matrix.indices, dim, seed, text.SVD)

    def compute() -> np.ndarray:
        from scipy.sparse import diags

        def inverse_root(axis: int) -> spmatrix:
            degree = np.asarray(matrix.sum(axis=axis)).ravel()
            return diags(1 / np.sqrt(np.maximum(degree, 1)))

        return text.reduce_dimensions(inverse_root(1) @ matrix @ inverse_root(0), dim, seed)

    return *cached_vectors(config, "collaborative", inputs, tokens, compute), None
