"""Vectors of texts from the word vectors that the package `wordllama` brings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_gr.errors import ConfigError

NAME = "wordllama"  # as a `text_encoder`


def word_vectors(texts: list[str]) -> np.ndarray:
    """Means of the vectors of a text's word pieces, distilled from a language model.

    Nothing is downloaded: 32,000 vectors of 256 numbers and their tokenizer are part of the
    package.

    Args:
        texts: one or more, none empty.

    Returns:
        numpy.ndarray: [n, 256] float32, rows of length 1.

    Raises:
        ConfigError: the optional dependency is missing, or has no vectors in it.
    """
    try:
        import wordllama
    except ImportError as error:
        raise ConfigError(f"text_encoder={NAME} needs its package: pip install {NAME}") from error
    try:
        # Version 0.4 looks for its tokenizer in another folder of the package than it is in, where
        # it does for one that was downloaded.
        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"text_encoder={NAME}: its vectors cannot be loaded: {error}") from error
    return np.asarray(model.embed(texts, norm=True), dtype=np.float32)
