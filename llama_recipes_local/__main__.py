"""``python -m llama_recipes_local``: the same as the console script ``llama-recipes-local``."""

import sys

from llama_recipes_local.cli import main

if __name__ == "__main__":
    sys.exit(main())
