"""``llama-recipes-local evaluate``: measures a model on validation data, or compares results."""
