"""Translations of training texts: what is made of a chunk of rows, where it is kept, and how rows get it."""
