"""Talks with the user: what is typed and what the model says alternate."""

import sys
from collections.abc import Iterator
from typing import Any

from llama_recipes_local.cli.parsing import read_typed
from llama_recipes_local.commands.generate.generator import Generator, Sampling
from llama_recipes_local.commands.generate.model_loading import load_model
from llama_recipes_local.commands.generate.model_source import ModelSource
from llama_recipes_local.commands.generate.stopping import StoppingStreamer, find_stops
from llama_recipes_local.datasets.prompt_template import CHAT, PromptTemplate
from llama_recipes_local.datasets.templates import Message
from llama_recipes_local.errors import refusal

HELP = "a line is a turn; /new begins anew, /quit or Ctrl-D ends"


def chat(
    source: ModelSource,
    tokenizer: Any,
    template: PromptTemplate | None,
    sampling: Sampling,
    system: str | None = None,
) -> None:
    """Answer each line of standard input, with the turns before it, as it is made.

    Where training put single texts in a prompt, each line is one by itself.

    Raises:
        UsageError: if there is no template, or a line is not UTF-8.
    """
    if template is None:
        why = "turns become one text by a chat template, and none was saved with the model"
        raise refusal("--chat has no template", why, "add --template NAME")
    generator = Generator(load_model(source), tokenizer)
    stops = find_stops(template, tokenizer, generator.ends)
    begun: list[Message] = [{"role": "system", "content": system}] if system else []
    turns = list(begun)
    print(f"--> {HELP}", file=sys.stderr)
    for line in _lines():
        if line == "/new":
            turns = list(begun)
            continue
        turns.append({"role": "user", "content": line})
        if template.kind == CHAT:
            text = template.of_turns(turns, tokenizer)
        else:
            text = template.of_text(line, tokenizer)
        streamer = StoppingStreamer(tokenizer, stops)
        ((said,),) = generator.complete([text], sampling, stops, streamer)
        turns.append({"role": "assistant", "content": said})


def _lines() -> Iterator[str]:
    """Yield what the user types; blank lines are passed over."""
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = read_typed(sys.stdin.readline)
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()
