"""``llama-recipes-local check``: is a copied folder complete and unchanged?"""
