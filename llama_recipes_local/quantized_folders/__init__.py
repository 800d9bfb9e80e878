"""Folders in the Hugging Face layout whose weights are quantised, for vLLM and transformers."""
