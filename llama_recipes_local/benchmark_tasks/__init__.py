"""Benchmarks from local files, with the prompts and scores of lm-eval's default tasks."""
