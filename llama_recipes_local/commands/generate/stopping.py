"""Where a completion ends: at tokens, or at what comes before the user's next turn."""

from dataclasses import dataclass
from typing import Any

from transformers import TextStreamer

from llama_recipes_local.datasets.prompt_template import PromptTemplate


@dataclass(frozen=True)
class Stops:
    """What ends a completion.

    Attributes:
        ids: tokens.
        texts: texts; they are no part of the completion.
    """

    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def cut(self, text: str) -> str:
        """Return a completion up to the first of the texts."""
        found = [place for place in (text.find(stop) for stop in self.texts) if place >= 0]
        return text[: min(found)].rstrip() if found else text

    def sure(self, text: str) -> str:
        """Return as much of an unfinished completion as no text's beginning may take back."""
        text = self.cut(text)
        beginnings = (stop[:length] for stop in self.texts for length in range(1, len(stop)))
        held = [len(beginning) for beginning in beginnings if text.endswith(beginning)]
        return text[: len(text) - max(held)] if held else text


def find_stops(template: PromptTemplate | None, tokenizer: Any, also: list[int]) -> Stops:
    """Return what ends a completion in a template.

    A chat's turn ends with a special token, or else with what begins the user's next turn.

    Args:
        template: what the prompt is put into.
        tokenizer: the model's.
        also: tokens that the model's folder names; the one that ends a text is always one.
    """
    ids = [*also, tokenizer.eos_token_id]
    end = template.end_of_turn(tokenizer) if template else ""
    first = tokenizer(end, add_special_tokens=False)["input_ids"][:1]
    if first and first[0] in tokenizer.added_tokens_decoder:
        ids += first
        end = ""
    known = dict.fromkeys(token for token in ids if token is not None)
    return Stops(tuple(known), (end,) if end else ())


class StoppingStreamer(TextStreamer):
    """Prints a completion as it is made, without the text that ends it."""

    def __init__(self, tokenizer: Any, stops: Stops) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._stops = stops
        self._made = ""
        self._printed = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print what is sure of the completion so far."""
        self._made += text
        sure = self._stops.cut(self._made) if stream_end else self._stops.sure(self._made)
        print(sure[self._printed :], end="\n" if stream_end else "", flush=True)
        self._printed = max(self._printed, len(sure))
