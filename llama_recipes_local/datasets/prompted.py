"""The formatter of data sets that put one column in a prompt and train another as the response."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.columns import is_blank, text_of
from llama_recipes_local.datasets.examples import Pair
from llama_recipes_local.datasets.prompt_template import PROMPT, Frame
from llama_recipes_local.records.values import Record


@dataclass(frozen=True)
class PromptFormatter:
    """Makes a pair of each record.

    Attributes:
        template: the prompt, with ``{}`` where the text goes.
        text: the column that goes into the prompt.
        response: the column that is trained.
    """

    template: str
    text: str
    response: str

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Pair | None:
        """Return the record's pair, or None if either side is blank."""
        text, response = text_of(record, self.text), text_of(record, self.response)
        if is_blank(text) or is_blank(response):
            return None
        return Pair(self.template.format(text), response)

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """Return what generation is to put a text into."""
        return Frame(PROMPT, self.template)
