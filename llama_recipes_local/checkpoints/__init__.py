"""Checkpoints that a run resumes from: published whole or not at all, on any number of ranks.

A checkpoint is the folder ``checkpoint-STEP`` of a run's output folder; ``layout`` says what is in
it. ``model_checkpointing`` is something else: upstream's functions for saving a finished model.
"""
