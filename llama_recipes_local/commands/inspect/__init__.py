"""``llama-recipes-local inspect``: rows, a packed row, the audit and the lengths of a data set."""
