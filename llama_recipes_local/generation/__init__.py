"""Lets a fine-tuned model complete prompts: an adapter on its base model, or a whole model."""

from llama_recipes_local.generation.generator import Generator
from llama_recipes_local.generation.sampling import Sampling
from llama_recipes_local.generation.sources import Source, find_source
from llama_recipes_local.generation.stopping import Stops, find_stops

__all__ = ["Generator", "Sampling", "Source", "Stops", "find_source", "find_stops"]
