"""Files that are whole or absent: checkpoints, manifests, caches, and the names that runs take."""
