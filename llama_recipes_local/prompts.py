"""The prompts that data sets are trained with, so that generation can use the same."""

PROMPTS = {
    "grammar_dataset": "Correct this to standard English: {}\n---\nCorrected: ",
    "samsum_dataset": "Summarize this dialog:\n{}\n---\nSummary:\n",
}


def format_prompt(dataset: str, text: str) -> str:
    """Return the prompt that a data set puts ``text`` in.

    Raises:
        KeyError: if the data set has no prompt of this form.
    """
    return PROMPTS[dataset].format(text)
