"""``llama-recipes-local what-to-bring``: the files that a machine without a network needs."""
