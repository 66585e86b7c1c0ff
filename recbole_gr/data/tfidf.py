"""Vectors from what is written about items: TF-IDF with truncated SVD, or a sentence encoder."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from recbole_gr.data import word_vectors
from recbole_gr.errors import ConfigError
from recbole_gr.terminal.bars import are_seen

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

    from recbole_gr.data.encoder import TextColumns
    from recbole_gr.data.item_file import ItemFile

# Whose releases make its vectors.
ENCODERS = ("sentence-transformers", "transformers", "torch", word_vectors.NAME)
SVD = "float64 on a grid"  # part of the cache key of vectors that `_unit_rows` makes
_GRID = 20  # their binary places
MIN_DISTINCT = 0.1  # `auto` takes text only if the items have at least this share of distinct texts


def choose_text_fields(
    item_file: ItemFile, wanted: list[str] | str | None = None
) -> tuple[list[str], list[str]]:
    """Columns of the `.item` file that say something about an item.

    Without `wanted`: every token and token_seq column but the item id and columns that look like
    ids (every cell a single token that no other item has). Float columns have no words.

    Args:
        item_file (ItemFile): the item file.
        wanted (list[str] | str | None): `text_fields` of the configuration.

    Returns:
        tuple[list[str], list[str]]: columns chosen, possibly none, and those left out as ids.

    Raises:
        ConfigError: a wanted column does not exist or holds numbers.
    """
    usable = [
        name
        for name, kind in item_file.columns.items()
        if kind in ("token", "token_seq") and name != item_file.id_field
    ]
    if wanted is not None:
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        unknown = [name for name in wanted if name not in usable]
        if unknown:
            raise ConfigError(
                f"text_fields: {item_file.path} has no text column {unknown[0]!r}; its text "
                f"columns are {usable}"
            )
        return wanted, []
    ids = [name for name in usable if _looks_like_id(item_file.cells[name], item_file.separator)]
    return [name for name in usable if name not in ids], ids


def _looks_like_id(cells: pd.Series, separator: str) -> bool:
    filled = cells[cells != ""]
    single = not filled.str.strip().str.contains(separator, regex=False).any()
    return len(filled) > 1 and single and filled.is_unique


def item_terms(
    item_file: ItemFile | TextColumns, fields: Sequence[str], rows: np.ndarray
) -> list[list[str]]:
    """Terms of each item for TF-IDF.

    Words of a sequence column are lower-cased and freed of punctuation around them. The value of a
    token column is one term that carries the column's name (`brand=opi`), joined by its words if
    it has several.

    Args:
        item_file (ItemFile | TextColumns): the item file, or texts of new items.
        fields (list[str]): text columns.
        rows (numpy.ndarray): [n] line of each item, -1 for none.

    Returns:
        list[list[str]]: terms of the n items; none for an item without text.
    """
    terms: list[list[str]] = [[] for _ in rows]
    for field in fields:
        cells = item_file.cells[field].to_numpy()
        whole = item_file.columns[field] == "token"
        for own, row in zip(terms, rows.tolist()):
            if row < 0 or not cells[row]:
                continue
            words = cells[row].lower().replace(item_file.separator, " ").split()
            words = [word.strip(string.punctuation) for word in words]
            if whole:
                own.append(f"{field}={cells[row].lower()}")
            if not whole or len(words) > 1:
                own.extend(word for word in words if word)
    return terms


def item_sentences(
    item_file: ItemFile | TextColumns, fields: Sequence[str], rows: np.ndarray
) -> list[str]:
    """One line of text per item for a sentence encoder, `field: words. field: words.`

    Underscores that tie the words of one token become blanks. Items without text get "".

    Returns:
        list[str]: n texts, see `item_terms` for the arguments.
    """
    parts: list[list[str]] = [[] for _ in rows]
    for field in fields:
        cells = item_file.cells[field].to_numpy()
        for own, row in zip(parts, rows.tolist()):
            if row >= 0 and cells[row].strip():
                own.append(f"{field}: {cells[row].replace('_', ' ').strip()}.")
    return [" ".join(part) for part in parts]


def enough_text(item_file: ItemFile, fields: Sequence[str], rows: np.ndarray) -> bool:
    """Whether the text of the items tells them apart well enough to be taken for content unasked.

    A column that merely names one of five periods, say, is no description of an item.
    """
    cells = item_file.cells.loc[rows[rows >= 0], fields]
    filled = cells[(cells != "").any(axis=1)]
    return len(filled.drop_duplicates()) >= max(2, MIN_DISTINCT * len(rows))


def reduce_dimensions(matrix: spmatrix, dim: int, seed: int) -> np.ndarray:
    """L2-normalised rows of a sparse matrix in the space of its first singular vectors.

    Args:
        matrix (scipy.sparse matrix): [n, m].
        dim (int): dimensions wanted; fewer where the matrix has fewer rows or columns.
        seed (int): of the randomised solver.

    Returns:
        numpy.ndarray: [n, d] float32; empty rows of `matrix` are zero.
    """
    return _unit_rows(_singular_vectors(matrix, dim, seed)[0])


def _singular_vectors(matrix: spmatrix, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [n, m] in the space of its first right singular vectors [n, d], and these [d, m]."""
    from sklearn.decomposition import TruncatedSVD

    reduced = min(dim, *matrix.shape)
    if reduced < dim:
        getLogger().debug("content_dim=%d reduced to %d: a matrix %s", dim, reduced, matrix.shape)
    svd = TruncatedSVD(reduced, n_iter=7, random_state=seed)
    return svd.fit_transform(matrix.astype(np.float64)), svd.components_


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, as float32 on a grid of 2**-20.

    Linear algebra of another release or processor differs in the last bits, after which k-means
    gives one item in a hundred another SID. Computed in float64 these bits lie far below the grid,
    so that the same data give the same bytes.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-8)
    return np.ldexp(np.rint(np.ldexp(vectors, _GRID)), -_GRID).astype(np.float32)


class Tfidf(NamedTuple):
    """A fitted TF-IDF with truncated SVD.

    Attributes:
        terms (list[str]): [t] the terms it knows.
        idf (FloatTensor): [t] their weights.
        components (FloatTensor): [d, t] the singular vectors.
    """

    terms: list[str]
    idf: torch.Tensor
    components: torch.Tensor

    def vectors(self, terms: list[list[str]]) -> np.ndarray:
        """As :func:`tfidf_vectors` gave them for the items that it was fitted on.

        Args:
            terms (list[list[str]]): terms of each item; unknown ones count for nothing.

        Returns:
            numpy.ndarray: [n, d] float32, rows of length 1, zero for items without known terms.
        """
        from scipy.sparse import csr_matrix

        place = dict(zip(self.terms, range(len(self.terms))))
        counts = [Counter(place[term] for term in own if term in place) for own in terms]
        columns = np.array([column for own in counts for column in own], dtype=np.int64)
        values = np.array([n for own in counts for n in own.values()], dtype=np.float32)
        starts = np.cumsum([0, *map(len, counts)])
        rows = np.repeat(np.arange(len(terms)), np.diff(starts))
        weights = (1 + np.log(values)) * self.idf.cpu().numpy()[columns]
        length = np.sqrt(np.bincount(rows, weights**2, len(terms)))
        weights = (weights / length[rows]).astype(np.float32)
        shape = (len(terms), len(self.terms))
        matrix = csr_matrix((weights, columns, starts), shape=shape)
        return _unit_rows(np.asarray(matrix @ self.components.cpu().numpy().T))

    def plain(self) -> dict[str, Any]:
        """Plain data and tensors for a checkpoint; a single text of terms loads far faster."""
        return {**self._asdict(), "terms": "\n".join(self.terms)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Tfidf:
        """The way back from :meth:`plain`."""
        return cls(plain["terms"].split("\n"), plain["idf"], plain["components"])


def tfidf_vectors(terms: list[list[str]], dim: int, seed: int) -> tuple[np.ndarray, Tfidf]:
    """Latent semantic vectors: TF-IDF of the terms (term counts in logarithms), truncated SVD.

    Source: Deerwester et al., Indexing by Latent Semantic Analysis, 1990.

    Args:
        terms (list[list[str]]): terms of each item, at least one term in all.
        dim (int): `content_dim`.
        seed (int): of the SVD.

    Returns:
        tuple: numpy.ndarray [n, d] float32, rows of length 1, zero for items without terms; and
        the :class:`Tfidf` that gives them, for items that come later.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(analyzer=list, sublinear_tf=True)
    projected, components = _singular_vectors(tfidf.fit_transform(terms), dim, seed)
    known = tfidf.get_feature_names_out().tolist()
    parts = (np.ascontiguousarray(part, dtype=np.float32) for part in (tfidf.idf_, components))
    return _unit_rows(projected), Tfidf(known, *map(torch.from_numpy, parts))


def sentence_vectors(
    texts: list[str], encoder: str, device: str | None = None, progress: bool = False
) -> np.ndarray:
    """Vectors of a sentence-transformers model, or of the package `wordllama`.

    Args:
        texts (list[str]): one text per item; "" gives a zero vector.
        encoder (str): name or folder of the model, or `wordllama`: `text_encoder`.
        device (str | None): where to run it.
        progress (bool): show a bar.

    Returns:
        numpy.ndarray: [n, d] float32, rows of length 1 or 0.

    Raises:
        ConfigError: the optional dependency or the model is missing.
    """
    filled = [i for i, text in enumerate(texts) if text]
    some = [texts[i] for i in filled]
    if encoder == word_vectors.NAME:
        encoded = word_vectors.word_vectors(some)
    else:
        encoded = _by_sentence_transformers(some, encoder, device, progress)
    vectors = np.zeros((len(texts), encoded.shape[1]), dtype=np.float32)
    vectors[filled] = encoded
    return vectors


def _by_sentence_transformers(
    texts: list[str], encoder: str, device: str | None, progress: bool
) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "item_content=sentence needs sentence-transformers: pip install recbole_gr[text] "
            f"(text_encoder={word_vectors.NAME} needs no model, item_content=text nothing at all)"
        ) from error
    try:
        model = SentenceTransformer(encoder, device=device)
    except (OSError, ValueError) as error:
        raise ConfigError(f"text_encoder={encoder!r} cannot be loaded: {error}") from error
    vectors = model.encode(
        texts,
        show_progress_bar=bool(progress) and are_seen(),
        convert_to_numpy=True,
        normalize_embeddings=True,
    )
    return np.asarray(vectors, dtype=np.float32)
