"""The tests; the tree mirrors `service/` and `scripts/`, which they may import."""
