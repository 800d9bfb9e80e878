"""Checkpoints: all that a run is resumed from, whole or not at all, on any number of ranks.

A checkpoint is the folder ``checkpoint-STEP`` of a run's output folder. ``layout`` tells what is in
it. ``model_checkpointing`` is something else: it has upstream's names for saving a finished model.
"""
