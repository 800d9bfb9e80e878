"""Measures a fine-tuned model on a data set's validation part, and compares two results."""
