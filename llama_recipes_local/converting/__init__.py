"""Makes a Hugging Face folder of a sharded checkpoint: this package's own, or upstream's."""

from llama_recipes_local.converting.command import Conversion, convert

__all__ = ["Conversion", "convert"]
