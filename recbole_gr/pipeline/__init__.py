"""Stage 1 of a run: item content, signals and semantic IDs."""
