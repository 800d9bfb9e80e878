"""``llama-recipes-local prepare tokens``: tokens made ahead, in a folder that travels."""
