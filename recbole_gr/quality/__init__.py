"""How good semantic IDs are: figures, report, gate and pictures."""
