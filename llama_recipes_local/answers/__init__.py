"""What a model answers to prompts: completions, the questions of a data set, and their score."""
