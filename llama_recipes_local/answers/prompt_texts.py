"""Turns what the user asks into the text that the model completes: prompts and their template."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.model_loading import vocabulary_and_positions
from llama_recipes_local.answers.model_source import ModelSource
from llama_recipes_local.datasets.column_names import CONTEXT
from llama_recipes_local.datasets.layouts import read_text
from llama_recipes_local.datasets.prompt_template import (
    CHAT,
    PROMPT,
    PROMPT_TEMPLATE_FILE,
    PromptTemplate,
    chat_prompt_template,
    find_prompt_template,
    read_prompt_template,
)
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.templates import Message, has_chat_template
from llama_recipes_local.datasets.token_ids import begun, text_ids
from llama_recipes_local.datasets.tool_calls import read_tools
from llama_recipes_local.datasets.turns import is_turns, read_history, read_turns
from llama_recipes_local.errors import Problem, UsageError, caught, refusal, refuse
from llama_recipes_local.messages import missing_path
from llama_recipes_local.records import finding
from llama_recipes_local.records.any_format import format_of, records
from llama_recipes_local.records.source import Source
from llama_recipes_local.records.text_lines import text_lines, without_end

FLAG = "--prompts"
TEMPLATE_FLAG = "--template"
MAX_PROBLEMS = 10
"""Prompts that are reported at a time."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the user gives it.

    Attributes:
        where: its place in the input, for messages.
        content: a text, or the turns of a chat.
        system: the system message that goes before the content; empty for none.
        tools: the JSON schema of each tool that the assistant may call.
    """

    where: str
    content: str | list[Message]
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Its key in a record."""
        return "prompt" if isinstance(self.content, str) else "messages"

    @property
    def turns(self) -> list[Message]:
        """The turns that a chat template writes.

        Raises:
            UsageError: if the content has a system message next to another.
        """
        turns = self.content
        if isinstance(turns, str):
            turns = [{"role": "user", "content": turns}]
        if not self.system:
            return turns
        if turns[0]["role"] == "system":
            why = "it begins with a system message of its own"
            raise refusal(f"{self.where} has a system message", why, "leave one of them out")
        return [{"role": "system", "content": self.system}, *turns]

    def to_text(self, template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the whole text that the model completes.

        Raises:
            UsageError: if it has turns or a system message and there is no chat template.
        """
        if self.system or self.tools or not isinstance(self.content, str):
            if template is None or template.kind != CHAT:
                named = "a system message" if self.system else "tools" if self.tools else "turns"
                what = f"{self.where} has {named}"
                why = "a chat template makes one text of turns, and there is none here"
                raise refusal(what, why, "add --template NAME")
            return template.of_turns(self.turns, tokenizer, self.tools, self.where)
        if template is None:
            return begun(self.content, tokenizer)
        return template.of_text(self.content, tokenizer)


def choose_prompt_template(
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    raw: bool = False,
    dataset: str | None = None,
    template: str | None = None,
) -> tuple[PromptTemplate | None, str]:
    """Return the prompt template, or None, and the reason for the choice.

    Args:
        source: the saved model.
        tokenizer: the model's.
        raw: whether prompts are not put into a template.
        dataset: a data set whose prompt is used.
        template: a chat template's name.

    Raises:
        UsageError: if the tokenizer lacks the template's tokens, or the saved template is corrupt.
    """
    if raw:
        return None, "prompts stay as they are"
    if dataset:
        chosen = PromptTemplate(PROMPT, DATASETS[dataset].prompt, begins=True)
        return chosen, f"the prompt template is that of {dataset}"
    if template:
        chosen = chat_prompt_template(template, tokenizer, TEMPLATE_FLAG)
        return chosen, f"the chat template is {template}"
    saved = find_prompt_template(source.folder)
    if saved:
        why = f"the prompt template is that of training ({saved}; not with --raw)"
        return read_prompt_template(saved), why
    none = f"prompts stay as they are: there is no {PROMPT_TEMPLATE_FILE} in {source.folder}"
    if not has_chat_template(tokenizer):
        return None, none
    if source.adapter is not None and not source.brought_tokenizer:
        return None, f"{none} ({TEMPLATE_FLAG} tokenizer: put into the model's chat template)"
    own = chat_prompt_template("tokenizer", tokenizer, TEMPLATE_FLAG)
    whose = "that of the adapter's folder" if source.adapter else "the model's own"
    return own, f"the chat template is {whose} (not with --raw)"


def read_prompts(path: Path) -> list[Prompt]:
    """Return a file's prompts; blank lines of a text file are skipped.

    Raises:
        UsageError: if the file cannot be read, a record has neither ``prompt`` nor ``messages``,
            or there is no prompt.
    """
    path = path.expanduser().absolute()  # resolve() breaks the name of a pipe
    fix = f"name a file: {FLAG} FILE"
    if not path.exists():
        raise UsageError([missing_path(path, fix)])
    if path.is_dir():
        raise refusal(f"{FLAG} {path} is a folder", finding.describe_files(path), fix)
    read = list(_records(path) if format_of(path.name) else _lines(path))
    if not read:
        raise refusal(f"{FLAG} {path} has no prompts", "every line is blank", "write some")
    return read


def _lines(path: Path) -> Iterator[Prompt]:
    for number, line in text_lines(Source(path)):
        if line.strip():
            yield Prompt(f"line {number} of {path}", without_end(line))


def _records(path: Path) -> list[Prompt]:
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    unused: Counter[str] = Counter()
    with caught() as unreadable:
        for where, values in records(path):
            with caught() as found:
                prompts.append(_of_record(where, values))
            problems += found
            unused.update(str(name) for name in values if name not in {_key(values), *CONTEXT})
    refuse((problems + unreadable)[:MAX_PROBLEMS])
    if unused:
        fields = ", ".join(f"{name} ({count:,})" for name, count in unused.items())
        print(f"--> fields of the records that are not used: {fields}", file=sys.stderr)
    return prompts


def _key(values: Mapping[str, Any]) -> str:
    return "messages" if "messages" in values else "prompt"


def _of_record(where: str, values: Mapping[str, Any]) -> Prompt:
    key = _key(values)
    content: str | list[Message] | None
    if key == "messages" or is_turns(values.get(key)):
        content = read_turns(values[key], f"'{key}' in {where}")
    else:
        content = read_text(values.get(key), f"'{key}' in {where}")
    if content is None:
        why = f"its {key!r} is blank"
        if key not in values:
            why = f"its keys are {', '.join(map(str, values))}; it needs prompt or messages"
        raise refusal(f"{where} has nothing to complete", why, "write it, or leave the record out")
    beside = {CONTEXT[name]: value for name, value in values.items() if name in CONTEXT}
    if history := read_history(beside.get("history") or [], f"'history' in {where}"):
        content = [*history.turns, *Prompt(where, content).turns]
    if system := read_text(beside.get("system"), f"'system' in {where}"):
        content = Prompt(where, content, system).turns
    tools = read_tools(beside.get("tools"), f"'tools' in {where}")
    return Prompt(where, content, tools=tuple(tools))


def check_limits(
    prompts: list[Prompt],
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    source: ModelSource,
) -> None:
    """Refuse prompts that the model cannot take, before its weights are loaded.

    Raises:
        UsageError: if one has more tokens than the model has positions, or a token outside of its
            vocabulary.
    """
    rows, positions = vocabulary_and_positions(source)
    problems = []
    for prompt, ids in zip(prompts, text_ids(tokenizer, texts), strict=True):
        if positions and len(ids) >= positions:
            what = f"{prompt.where} has {len(ids):,} tokens"
            why = f"the model in {source.model} has {positions:,} positions"
            problems.append(Problem(what, f"{why} (max_position_embeddings)", "shorten it"))
        unknown = [token for token in ids if token >= rows]
        if unknown:
            token = tokenizer.convert_ids_to_tokens(unknown[0])
            what = f"{prompt.where} has the token {token!r}, number {unknown[0]:,}"
            why = f"the vocabulary of the model in {source.model} has {rows:,} tokens"
            fix = "name the tokenizer that was trained with the model: --tokenizer_name DIR"
            problems.append(Problem(what, why, fix))
    if problems:
        raise UsageError(problems[:MAX_PROBLEMS])
