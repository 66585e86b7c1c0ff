"""Continual runs: tokenizers and recommenders over data that arrive in periods (DACT)."""
