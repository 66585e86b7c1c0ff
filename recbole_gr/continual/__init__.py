"""Running tokenizers and recommenders over data that arrive in periods (DACT, arXiv 2603.29705)."""
