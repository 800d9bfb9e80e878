"""Checkpoints that a run resumes from, on any number of ranks; written completely or not at all.

A checkpoint is the folder ``checkpoint-STEP`` in a run's output folder; ``layout`` lists its files.
The room ``model_checkpointing`` is something else: upstream's functions for saving a finished
model.
"""
