"""``llama-recipes-local replay``: compares a result with its manifest, and makes it again."""
