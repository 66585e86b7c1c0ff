"""Tokenizers: from item content to SIDs. `recbole_gr.registry.get_tokenizer` finds them by name."""

import logging

# FAISS tells at every import which processor-specific builds it does not have.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)
