"""``quantization_config``: upstream's, as it is."""

from llama_recipes_local._upstream import load

quantization_config = load("configs.quantization").quantization_config
