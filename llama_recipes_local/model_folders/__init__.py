"""Folders in the Hugging Face layout: tensors are read one at a time, new folders are written."""
