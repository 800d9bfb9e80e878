"""Texts that show what a model forgets, by its perplexity on them before and after training.

They were written for this package and are in the public domain (``forgetting/LICENCE.txt``):
general English, Chinese, code and arithmetic, a few KB together. They are not a benchmark: a
perplexity on them means something only next to the same model's perplexity before training.
"""

from importlib import resources

FORGETTING = "forgetting"
"""Its name among the benchmarks."""

KINDS = ("english", "chinese", "code", "arithmetic")
BETWEEN = "\n%%\n"
"""What stands between two texts in a file."""


def texts(kind: str) -> list[str]:
    """Return the texts of a kind."""
    path = resources.files(__package__) / "forgetting" / f"{kind}.txt"
    return path.read_text("utf-8").strip().split(BETWEEN)
