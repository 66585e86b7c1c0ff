"""The model name `R3VAE`: TIGER on R3-VAE's SIDs."""

from recbole_gr.model.tiger import TIGER


class R3VAE(TIGER):
    """TIGER, unchanged, with ``tokenizer: R3VAE`` for its default.

    R3-VAE is a tokenizer and works with every generative model (``--tokenizer=R3VAE``); this is the
    pair that its paper evaluates (arXiv 2604.11440, section 8).
    """
