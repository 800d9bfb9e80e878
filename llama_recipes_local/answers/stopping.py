"""Where a completion ends: at an end token, or where the user's next turn would start."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, TextStreamer

from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.stop_tokens import end_of_turn_token, stop_ids


@dataclass(frozen=True)
class Stops:
    """What ends a completion.

    Attributes:
        ids: token ids.
        texts: texts, which are not part of the completion.
    """

    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def truncate(self, text: str) -> str:
        """Return a completion up to the first of the texts."""
        found = [place for place in (text.find(stop) for stop in self.texts) if place >= 0]
        return text[: min(found)].rstrip() if found else text

    def ended(self, ids: Sequence[int], text: str) -> bool:
        """Return whether a completion's tokens, or their text, contain a stop."""
        return not set(self.ids).isdisjoint(ids) or any(stop in text for stop in self.texts)

    def certain_part(self, text: str) -> str:
        """Return the part of an unfinished completion that cannot turn out to belong to a stop."""
        text = self.truncate(text)
        beginnings = (stop[:length] for stop in self.texts for length in range(1, len(stop)))
        held = [len(beginning) for beginning in beginnings if text.endswith(beginning)]
        return text[: len(text) - max(held)] if held else text


def find_stops(
    template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase, also: list[int]
) -> Stops:
    """Return what ends a completion.

    A turn of a chat ends with a special token, or else with the text that starts the next turn.

    Args:
        template: the prompt's template.
        tokenizer: the model's.
        also: ids of the end tokens in the model's folder; the tokenizer's own is added.
    """
    _, end = end_of_turn_token(template, tokenizer)
    return Stops(tuple(stop_ids(template, tokenizer, also)), (end,) if end else ())


def cut_off(ended: Sequence[bool], most: int) -> str:
    """Return the line that says how many completions ``max_new_tokens`` has ended."""
    count = f"{list(ended).count(False):,} of {len(ended):,} completions were"
    which = "the completion was" if len(ended) == 1 else count
    return f"--> {which} cut off at --max_new_tokens {most:,}"


class StoppingStreamer(TextStreamer):
    """Prints a completion as it is generated, without the stop that ends it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Stops) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._stops = stops
        self._made = ""
        self._printed = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the part of the completion that cannot belong to a stop."""
        self._made += text
        certain = (
            self._stops.truncate(self._made) if stream_end else self._stops.certain_part(self._made)
        )
        print(certain[self._printed :], end="\n" if stream_end else "", flush=True)
        self._printed = max(self._printed, len(certain))
