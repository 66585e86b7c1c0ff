"""The quality of semantic IDs: figures, report, gate and pictures."""
