"""Chat templates: from turns to a model's text.

A template is the tokenizer's own or one of the public formats below. transformers renders it in
jinja2's immutable sandbox, so that a template from a model's folder runs no code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llama_recipes_local.datasets.template_limits import limited
from llama_recipes_local.errors import Problem, UsageError, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLAG = "--local_dataset.template"
# Templates that write the day's date would give other tokens tomorrow. Llama 3.1's own default.
_DAY = datetime(2024, 7, 26)
DATE = _DAY.strftime("%d %b %Y")
_NOW = re.compile(r"""\bstrftime_now\(\s*("[^"]*"|'[^']*')\s*\)""")
# A turn: its role ("system", "user", "assistant", "tool") and content, and perhaps tool_calls,
# reasoning_content and what else a template may know; values are what JSON has.
Message = dict[str, Any]
Spans = tuple[tuple[int, int], ...]

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


# What a template that can be used at all writes, after a system turn or without.
_PROBE: tuple[Message, ...] = (
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
)


class TemplateError(UsageError):
    """A template cannot be used for any record, so the records are not at fault."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)

    def __reduce__(self) -> tuple[type[TemplateError], tuple[list[Problem]]]:
        return TemplateError, (self.problems,)


@dataclass(frozen=True)
class Template:
    """A public chat format.

    Attributes:
        text: the Jinja template.
        tokens: texts that the tokenizer must have as single tokens. Split into several, they would
            be ordinary text to the model, not the end of a turn.
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
    {%- elif message.role == 'assistant' -%}
        {{ '### Assistant:' }}
        {%- generation -%}{{ ' ' + message.content | trim }}{%- endgeneration -%}
    {%- else -%}
        {{ raise_exception('the speakers are a human and an assistant') }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '### Assistant:' -}}
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
        open_turn: whether the text ends where the assistant's words would begin.

    Raises:
        UsageError: if the template does not support the turns.
    """
    chat = Chat(template, tokenizer, "the conversation", "--template")
    return chat.render(turns, open_turn)


def find_template(name: str, tokenizer: PreTrainedTokenizerBase, flag: str = FLAG) -> Template:
    """Return a named template, or the tokenizer's own for "tokenizer"; ``flag`` names it.

    Raises:
        UsageError: if the tokenizer has none, or not the tokens that the named one writes.
    """
    if name == "tokenizer":
        return Template(_own_template(tokenizer, flag))
    missing = _missing(name, tokenizer)
    if missing:
        others = fitting_templates(tokenizer)
        raise _of_template(
            f"{flag}={name} is incompatible with this tokenizer",
            f"missing are the tokens {', '.join(missing)}",
            f"use one that this tokenizer has the tokens for: {flag}={' or '.join(others)}",
        )
    return TEMPLATES[name]


def for_tools(
    template: str, tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict[str, Any]]
) -> str:
    """Return the tokenizer's template for tools, if it has one beside the default that is given."""
    if not tools or template != _default_template(tokenizer):
        return template
    return tokenizer.get_chat_template(tools=list(tools))


def fitting_templates(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the templates that a tokenizer has the tokens for, its own first."""
    own = ["tokenizer"] if _default_template(tokenizer) else []
    return own + [name for name in TEMPLATES if not _missing(name, tokenizer)]


def has_chat_template(tokenizer: PreTrainedTokenizerBase | None) -> bool:
    """Whether a tokenizer has a chat template, which shows that the model was tuned on chats."""
    return tokenizer is not None and bool(tokenizer.chat_template)


def _missing(name: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens of a template that a tokenizer lacks."""
    if name == "llama2" and not (tokenizer.bos_token and tokenizer.eos_token):
        return ["one that begins a text", "one that ends it"]
    return [token for token in TEMPLATES[name].tokens if not _is_token(token, tokenizer)]


def _own_template(tokenizer: PreTrainedTokenizerBase, flag: str) -> str:
    template = _default_template(tokenizer)
    if template is None:
        raise _of_template(
            "the model's tokenizer has no chat template",
            "it has several, and none is the default"
            if tokenizer.chat_template
            else "turns become one text by a chat template, and the model's folder has none",
            "name a format that this tokenizer has the tokens for: "
            f"{flag}={' or '.join(fitting_templates(tokenizer))}",
        )
    return template


def _of_template(what: str, why: str, fix: str) -> TemplateError:
    return TemplateError([Problem(what, why, fix)])


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        return tokenizer.get_chat_template()
    except ValueError:
        return None


def _is_token(token: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    found = tokenizer.convert_tokens_to_ids(token)
    return found is not None and (found != tokenizer.unk_token_id or token == tokenizer.unk_token)


def _on_the_day(asked: re.Match[str]) -> str:
    """Return the date that a template asks for, as a literal in it."""
    return repr(_DAY.strftime(asked[1][1:-1]))


@dataclass(frozen=True)
class Chat:
    """A template, a tokenizer with its special tokens, and the turns' name in messages.

    Attributes:
        template: the Jinja template.
        tokenizer: the model's.
        where: how the user knows the turns, for messages.
        flag: the flag that names another template.
        tools: the tools that the assistant may call.
    """

    template: str
    tokenizer: PreTrainedTokenizerBase
    where: str
    flag: str = FLAG
    tools: tuple[dict[str, Any], ...] = ()  # a tool's JSON schema

    @property
    def another(self) -> str:
        """The flag with the templates that could be chosen instead."""
        fitting = [
            name
            for name in fitting_templates(self.tokenizer)
            if name != "tokenizer" and TEMPLATES[name].text != self.template
        ]
        return f"{self.flag}={' or '.join(fitting)}"

    def render(self, messages: Sequence[Message], open_turn: bool = False) -> str:
        """Return the turns' text; ``open_turn`` begins an assistant turn after them.

        Raises:
            UsageError: if the template does not support the turns.
        """
        return self._render(messages, open_turn, False)[0]

    def render_marked(self, messages: Sequence[Message]) -> tuple[str, Spans]:
        """Return the turns' text, and the stretches in the template's generation blocks."""
        text, spans = self._render(messages, False, True)
        return text, tuple(spans)

    def _render(self, messages: Sequence[Message], open_turn: bool, marked: bool) -> Any:
        try:
            return self._rendered(messages, open_turn, marked)
        except Exception as error:  # of any kind: a template may be wrong in all that Python knows
            self._refuse_if_broken(open_turn, marked)
            roles = ", ".join(message["role"] for message in messages)
            raise refusal(
                f"the chat template does not support {self.where}",
                f"the turns are {roles}; it raises: {error or type(error).__name__}",
                f"fix the turns, or name another template: {self.another}",
            ) from error

    def _refuse_if_broken(self, open_turn: bool, marked: bool) -> None:
        """Refuse the template if it cannot write a question and its answer.

        Raises:
            TemplateError: with what it raises.
        """
        probe = _PROBE[:-1] if open_turn else _PROBE
        without_tools = replace(self, tools=())
        try:
            without_tools._rendered(probe, open_turn, marked)
        except Exception:
            try:
                without_tools._rendered(probe[1:], open_turn, marked)
            except Exception as error:
                raise self._broken(error) from error

    def _broken(self, error: Exception) -> TemplateError:
        from jinja2 import TemplateSyntaxError

        line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        return _of_template(
            "the chat template cannot be used",
            f"it raises{line}: {error or type(error).__name__}",
            f"fix it (chat_template.jinja in the model's folder), or name another: {self.another}",
        )

    def _rendered(self, messages: Sequence[Message], open_turn: bool, marked: bool) -> Any:
        from transformers.utils.chat_template_utils import render_jinja_template

        tokens = {"bos_token": "", "eos_token": ""} | dict(self.tokenizer.special_tokens_map)
        render: Any = render_jinja_template  # it is annotated to return a string, and returns two
        with limited(self.template):
            texts, spans = render(
                conversations=[list(messages)],
                tools=list(self.tools) or None,
                chat_template=_NOW.sub(_on_the_day, self.template),
                return_assistant_tokens_mask=marked,
                add_generation_prompt=open_turn,
                date_string=DATE,
                **tokens,
            )
        return texts[0], spans[0] if marked else []
