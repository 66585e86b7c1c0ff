"""Semantic IDs: the table of codes, collisions, the prefix trie and the quality report."""
