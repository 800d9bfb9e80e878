"""A folder for each thing that ``llama-recipes-local prepare`` puts in place."""
