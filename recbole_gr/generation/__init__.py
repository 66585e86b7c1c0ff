"""Beam search that ends on items, ranking of its answers, and exact scores."""
