"""Augmentations: pure functions of a row and a key. Training rows only."""
