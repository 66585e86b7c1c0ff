"""FAISS, which comes with one of two extras: on its own an import could not say which."""

from recbole_gr.errors import ConfigError

try:
    import faiss
except ModuleNotFoundError as error:
    raise ConfigError(
        "FAISS is not installed, which this tokenizer and the quality report need: pip install "
        "faiss-cpu, or faiss-gpu on a machine with a GPU. The extras recbole_gr[cpu] and "
        "recbole_gr[gpu] bring them."
    ) from error

__all__ = ["faiss"]
