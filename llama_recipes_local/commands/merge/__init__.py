"""Merges a LoRA adapter into its base model, one layer at a time, by PEFT's own arithmetic."""
