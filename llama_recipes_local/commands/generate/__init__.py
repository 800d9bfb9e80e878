"""Completes prompts with a fine-tuned model: an adapter on its base model, or a full model."""
