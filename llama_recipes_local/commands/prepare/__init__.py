"""What ``llama-recipes-local prepare`` does for each data set, one module a data set."""
