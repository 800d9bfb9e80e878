"""The training loop: steps, evaluation, checkpoints, and what is displayed and logged."""
