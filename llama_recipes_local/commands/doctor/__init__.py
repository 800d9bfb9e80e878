"""``llama-recipes-local doctor``: what this machine has and what it lacks for training."""
