"""Lets a fine-tuned model complete prompts: an adapter on its base model, or a whole model."""
