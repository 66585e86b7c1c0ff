"""R3-VAE: reference vector, rating, fit."""
