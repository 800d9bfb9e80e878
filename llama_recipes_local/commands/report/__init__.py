"""``llama-recipes-local report``: one page of what runs left in their folders."""
