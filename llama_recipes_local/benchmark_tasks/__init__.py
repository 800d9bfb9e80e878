"""Benchmarks from local files: their prompts and scores are those of lm-eval's default tasks."""
