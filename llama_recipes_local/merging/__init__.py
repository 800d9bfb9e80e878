"""Merges a LoRA adapter into its base model, one layer at a time, by PEFT's own arithmetic."""

from llama_recipes_local.merging.command import Merge, merge

__all__ = ["Merge", "merge"]
