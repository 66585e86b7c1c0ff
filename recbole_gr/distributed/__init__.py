"""Processes of one run: start, rank and size, broadcast and gather, sharded batches."""
