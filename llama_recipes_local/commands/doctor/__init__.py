"""``llama-recipes-local doctor``: what a machine has, and what it lacks to train on."""
