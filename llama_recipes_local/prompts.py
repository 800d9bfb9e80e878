"""The prompts that data sets are trained with, so that generation can use the same."""

from collections.abc import Callable

from llama_recipes_local.errors import refusal

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


def read_typed(read: Callable[[], str]) -> str:
    """Return what ``read`` reads of standard input or a flag.

    Raises:
        UsageError: if it is in another encoding. By the locale Python refuses such bytes, or reads
            them as characters that no tokenizer takes.
    """
    try:
        text = read()
        text.encode("utf-8")
    except UnicodeError as error:
        fix = "write it in UTF-8, for example with iconv -f ENCODING -t UTF-8"
        raise refusal("a prompt is not UTF-8", str(error), fix) from error
    return text
