"""``llama-recipes-local completion``: scripts that complete the commands in a shell."""
