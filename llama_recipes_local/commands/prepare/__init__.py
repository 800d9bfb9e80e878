"""``llama-recipes-local prepare``: a package for each thing that it prepares."""
