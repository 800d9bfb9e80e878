"""The training loop, its loss, its evaluation, and what it reports."""
