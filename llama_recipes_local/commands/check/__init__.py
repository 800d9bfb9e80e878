"""``llama-recipes-local check``: whether a folder that was copied here is all there, as it was."""
