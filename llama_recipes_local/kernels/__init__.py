"""What is computed in another way than transformers does, for speed or for an adapter."""
