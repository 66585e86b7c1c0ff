"""RQ-VAE with collaborative vectors: LETTER and DACT."""
