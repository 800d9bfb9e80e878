"""Converts a sharded checkpoint, this package's or upstream's, to a Hugging Face folder."""
