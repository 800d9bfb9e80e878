"""Chat templates: from turns to a model's text, and the spans of it that the assistant says.

A template is the tokenizer's own or one of the public formats below. transformers renders it in
jinja2's immutable sandbox, so that a template from a model's folder runs no code.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.errors import refusal

FLAG = "--local_dataset.template"
# Templates that write the day's date would give other tokens tomorrow. Llama 3.1's own default.
DATE = "26 Jul 2024"
# What a turn is: {"role": "system" | "user" | "assistant", "content": text}.
Message = dict[str, str]
Spans = tuple[tuple[int, int], ...]

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What a template raises for turns that it does not support, or if it is wrong itself.
_RENDER_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError)


@dataclass(frozen=True)
class Template:
    """A public chat format.

    Attributes:
        text: the Jinja template.
        tokens: what the tokenizer must have as one token each; spelled in several, it would be
            text to the model, and no end of a turn.
        complete: whether it writes the tokens that begin and end a text itself.
    """

    text: str
    tokens: tuple[str, ...] = ()
    complete: bool = True


_LLAMA2 = """
{%- set ns = namespace(system='', next='user') -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {%- if not loop.first -%}{{ raise_exception('a system turn comes first') }}{%- endif -%}
        {%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -%}
    {%- elif message.role != ns.next -%}
        {{ raise_exception('user and assistant take turns, and the user begins') }}
    {%- elif message.role == 'user' -%}
        {{ bos_token + '[INST] ' + (ns.system + message.content) | trim + ' [/INST]' }}
        {%- set ns.system = '' -%}
        {%- set ns.next = 'assistant' -%}
    {%- else -%}
        {%- generation -%}
            {{ ' ' + message.content | trim + ' ' + eos_token }}
        {%- endgeneration -%}
        {%- set ns.next = 'user' -%}
    {%- endif -%}
{%- endfor -%}
"""
_LLAMA3 = """
{{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
    {{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{ message.content | trim + '<|eot_id|>' }}{%- endgeneration -%}
    {%- else -%}
        {{ message.content | trim + '<|eot_id|>' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""
_CHATML = """
{%- for message in messages -%}
    {{ '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{ message.content + '<|im_end|>' }}{%- endgeneration -%}
    {%- else -%}
        {{ message.content + '<|im_end|>' }}
    {%- endif -%}
    {{ '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
_GUANACO = """
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{ message.content | trim + '\\n' -}}
    {%- elif message.role == 'user' -%}
        {{ '### Human: ' + message.content | trim }}
    {%- else -%}
        {{ '### Assistant: ' }}
        {%- generation -%}{{ message.content | trim }}{%- endgeneration -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '### Assistant: ' -}}
{%- endif -%}
"""

TEMPLATES = {
    "llama2": Template(_LLAMA2),
    "llama3": Template(
        _LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "chatml": Template(_CHATML, ("<|im_start|>", "<|im_end|>")),
    "guanaco": Template(_GUANACO, complete=False),
}


def render_chat(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    labels: str,
    where: str,
) -> Marked:
    """Return turns as a text with its trained spans.

    Args:
        messages: the turns, at least one.
        tokenizer: the model's; its special tokens are the template's.
        name: a template's, or "tokenizer" for the tokenizer's own.
        labels: "assistant" to train the assistant's turns, up to the token that ends each;
            "all" to train everything.
        where: what the user knows the turns by.

    Raises:
        UsageError: if the template is unknown, does not support the turns, or does not show where
            the assistant's words are.
    """
    chosen = find_template(name, tokenizer)
    chat = _Chat(chosen.text, dict(tokenizer.special_tokens_map), where)
    if labels == "assistant" and _GENERATION.search(chosen.text):
        text, spans = chat.render_marked(messages)
    else:
        text, spans = chat.render(messages), None
    _check_nothing_is_lost(messages, text, where)
    if labels == "assistant" and spans is None:
        spans = tuple(
            _said(chat, messages, turn, text)
            for turn, message in enumerate(messages)
            if message["role"] == "assistant"
        )
    return Marked(text, spans, chosen.complete)


def render_turns(
    turns: Sequence[Message],
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    open_turn: bool = False,
) -> str:
    """Return turns as a text.

    Args:
        turns: the turns, at least one.
        template: the Jinja template.
        tokenizer: the model's; its special tokens are the template's.
        open_turn: whether the text ends where an assistant's words begin.

    Raises:
        UsageError: if the template does not support the turns.
    """
    special = dict(tokenizer.special_tokens_map)
    chat = _Chat(template, special, "the conversation", "--template")
    return chat.render(turns, open_turn)


def find_template(name: str, tokenizer: PreTrainedTokenizerBase, flag: str = FLAG) -> Template:
    """Return a named template, or the tokenizer's own for "tokenizer"; ``flag`` names it.

    Raises:
        UsageError: if the tokenizer has none, or not the tokens that the named one writes.
    """
    if name == "tokenizer":
        return Template(_own_template(tokenizer, flag))
    template = TEMPLATES[name]
    missing = [token for token in template.tokens if not _is_token(token, tokenizer)]
    if name == "llama2" and not (tokenizer.bos_token and tokenizer.eos_token):
        missing = ["one that begins a text", "one that ends it"]
    if missing:
        raise refusal(
            f"{flag}={name} is incompatible with this tokenizer",
            f"missing are the tokens {', '.join(missing)}",
            f"use the tokenizer's own template, {flag}=tokenizer, or one without them, "
            f"{flag}=guanaco",
        )
    return template


def _own_template(tokenizer: PreTrainedTokenizerBase, flag: str) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise refusal(
            "the model's tokenizer has no chat template",
            "turns become one text by a chat template, and the model's folder has none"
            if not tokenizer.chat_template
            else "it has several, and none is the default",
            f"name the model's format: {flag}=llama2, or another of {', '.join(TEMPLATES)}",
        ) from error


def _is_token(token: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    found = tokenizer.convert_tokens_to_ids(token)
    return found is not None and (found != tokenizer.unk_token_id or token == tokenizer.unk_token)


def _check_nothing_is_lost(messages: Sequence[Message], text: str, where: str) -> None:
    """Refuse a template that skips plain text, as those of models for images may.

    Only users' words are searched for: a template may omit an assistant's reasoning.
    """
    for message in messages:
        if message["role"] == "user" and message["content"].strip() not in text:
            raise refusal(
                f"the chat template omits what the user says in {where}",
                f"its text is {text!r:.200}",
                f"name a template for text: {FLAG}=llama2, or another of {', '.join(TEMPLATES)}",
            )


@dataclass(frozen=True)
class _Chat:
    """A template, the special tokens it may write, what the user knows the turns and it by."""

    template: str
    tokens: dict[str, Any]
    where: str
    flag: str = FLAG

    def render(self, messages: Sequence[Message], open_turn: bool = False) -> str:
        """Return the turns' text; ``open_turn`` begins an assistant turn after them."""
        return self._render(messages, open_turn, False)[0]

    def render_marked(self, messages: Sequence[Message]) -> tuple[str, Spans]:
        """Return the turns' text, and the stretches in the template's generation blocks."""
        text, spans = self._render(messages, False, True)
        return text, tuple(spans)

    def _render(self, messages: Sequence[Message], open_turn: bool, marked: bool) -> Any:
        tokens = {"bos_token": "", "eos_token": ""} | self.tokens
        render: Any = render_jinja_template  # it is annotated to return a string, and returns two
        try:
            texts, spans = render(
                conversations=[list(messages)],
                chat_template=self.template,
                return_assistant_tokens_mask=marked,
                add_generation_prompt=open_turn,
                date_string=DATE,
                **tokens,
            )
        except _RENDER_ERRORS as error:
            roles = ", ".join(message["role"] for message in messages)
            raise refusal(
                f"the chat template does not support {self.where}",
                f"the turns are {roles}; it raises: {error}",
                f"fix the turns, or name another template, such as {self.flag}=chatml",
            ) from error
        return texts[0], spans[0] if marked else []


def _said(chat: _Chat, messages: Sequence[Message], turn: int, text: str) -> tuple[int, int]:
    """Return where in the text an assistant turn is, from after what a reply is prompted with.

    That the text up to a turn is the same whatever follows is what this rests on, so it is
    checked.
    """
    until = chat.render(messages[: turn + 1]) if turn + 1 < len(messages) else text
    start = _reply_start(chat, messages, turn, until)
    if start is None or not text.startswith(until):
        raise refusal(
            f"the chat template writes earlier turns of {chat.where} in another way once more "
            "follow",
            "so where the assistant's words begin and end is unknown",
            f"train on everything with --local_dataset.labels=all, or name a template: "
            f"{FLAG}=llama2, or another of {', '.join(TEMPLATES)}",
        )
    return start, _turn_end(until, start, messages[turn]["content"])


def _reply_start(chat: _Chat, messages: Sequence[Message], turn: int, until: str) -> int | None:
    if turn > 0:
        prompted = chat.render(messages[:turn], open_turn=True)
        return len(prompted) if until.startswith(prompted) else None
    # a chat that the assistant opens: there are no turns to prompt after, so look for the prompt
    prompt = chat.render(messages[:1], open_turn=True).removeprefix(until)
    found = until.find(prompt)
    return found + len(prompt) if found >= 0 else None


def _turn_end(until: str, start: int, content: str) -> int:
    """Return the end of a turn, without the white space between a token that ends it and the next.

    Where no such token follows the words, the white space is what ends the turn, and is kept.
    """
    said = until[start:].rstrip()
    ends_with_words = said.endswith(content.strip())
    return len(until) if ends_with_words else start + len(said)
