"""Generative recommenders, one file each, and the layers they share."""
