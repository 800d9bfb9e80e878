"""``llama-recipes-local prepare tokens``: tokenises data in advance, into a portable folder."""
