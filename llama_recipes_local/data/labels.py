"""What marks a token that is no label."""

IGNORE_INDEX = -100
"""The label of a token that is not trained; torch's cross-entropy leaves it out."""
