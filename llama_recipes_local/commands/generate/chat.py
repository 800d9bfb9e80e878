"""A chat: each line of standard input is a turn of the user, followed by the model's answer."""

import re
import sys
from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.model_loading import load_model
from llama_recipes_local.answers.model_source import ModelSource
from llama_recipes_local.answers.stopping import StoppingStreamer, cut_off, find_stops
from llama_recipes_local.cli.parsing import read_typed
from llama_recipes_local.datasets.prompt_template import CHAT, PromptTemplate
from llama_recipes_local.datasets.templates import Message
from llama_recipes_local.datasets.token_ids import text_ids
from llama_recipes_local.errors import refusal

HELP = "each line is a turn; /new starts a new chat, /quit or Ctrl-D ends it"


def chat(
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate | None,
    sampling: Sampling,
    system: str | None = None,
) -> None:
    """Answer each line of standard input after the turns before it, printing tokens as they come.

    If the template is a prompt for single texts, each line is completed by itself.

    Raises:
        UsageError: if there is no template, or a line is not UTF-8.
    """
    if template is None:
        why = "a chat template makes one text of turns, and none was saved with the model"
        raise refusal("--chat has no template", why, "add --template NAME")
    generator = Generator(load_model(source), tokenizer)
    stops = find_stops(template, tokenizer, generator.ends)
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    turns = list(start)
    print(f"--> {HELP}", file=sys.stderr)
    for line in _lines():
        if re.fullmatch("/[a-z]+", line):  # /help, say, is not meant for the model
            if line == "/new":
                turns = list(start)
            else:
                print(f"--> {HELP}", file=sys.stderr)
            continue
        turns.append({"role": "user", "content": line})
        if template.kind == CHAT:
            text = template.of_turns(turns, tokenizer)
        else:
            text = template.of_text(line, tokenizer)
        (ids,) = text_ids(tokenizer, [text])
        if generator.positions is not None and len(ids) >= generator.positions:
            limit = f"the model has {generator.positions:,} positions"
            print(f"--> {len(ids):,} tokens, and {limit}: /new starts a new chat", file=sys.stderr)
            turns.pop()
            continue
        streamer = StoppingStreamer(tokenizer, stops)
        (((answer, ended),),) = generator.complete_and_tell([text], sampling, stops, streamer)
        if not ended:
            print(cut_off([ended], sampling.max_new_tokens), file=sys.stderr)
        turns.append({"role": "assistant", "content": answer})


def _lines() -> Iterator[str]:
    """Yield what the user types; blank lines are skipped."""
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = read_typed(sys.stdin.readline)
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()
