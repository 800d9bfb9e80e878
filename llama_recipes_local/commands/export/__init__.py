"""``llama-recipes-local export``: a model in the formats that other programs run."""
