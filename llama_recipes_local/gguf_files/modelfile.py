"""Writes the Modelfile from which Ollama makes a model: the GGUF file, the prompt and the stops."""

import json
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.prompt_template import (
    CHAT,
    PLACE,
    PromptTemplate,
    chat_prompt_template,
    read_prompt_template,
)
from llama_recipes_local.datasets.stop_tokens import end_of_turn_token, ends_of_folder, stop_ids
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.datasets.token_ids import begin_token
from llama_recipes_local.errors import UsageError
from llama_recipes_local.model_folders.exported_model import ExportedModel

_SYSTEM, _USER = "{system}", "{user}"
_QUOTES = '"""'


def stops(model: ExportedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokens that end an answer of the model."""
    return stop_ids(_prompt(model, tokenizer), tokenizer, ends_of_folder(model.source))


def write_modelfile(
    folder: Path, file: str, model: ExportedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the Modelfile.

    Args:
        folder: where to write.
        file: the GGUF file's name.
        model: the exported model.
        tokenizer: its tokenizer.
    """
    prompt = _prompt(model, tokenizer)
    lines = [f"FROM ./{file}"]
    if prompt is not None and _QUOTES not in (text := ollama_template(prompt, tokenizer)):
        lines.append(f"TEMPLATE {_QUOTES}{text}{_QUOTES}")
    ends = tokenizer.convert_ids_to_tokens(stops(model, tokenizer))
    lines += [f'PARAMETER stop "{each}"' for each in ends]
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", "utf-8")


def example_prompt(model: ExportedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a prompt of the model's template, without the begin token; "" if it has none."""
    prompt = _prompt(model, tokenizer)
    return _of_user(prompt, tokenizer) if prompt is not None else ""


def trained_template(model: ExportedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the run's prompt template as a chat template in Jinja; None without one."""
    if model.prompt_template is None:
        return None
    prompt = read_prompt_template(model.prompt_template)
    begin = _begin_of_its_own(prompt, tokenizer)
    if prompt.kind == CHAT:
        return (f"{{{{ {json.dumps(begin)} }}}}" if begin else "") + prompt.template
    first, _, last = prompt.template.partition(PLACE)
    before, after = json.dumps(begin + first), json.dumps(last)
    return f"{{{{ {before} }}}}{{{{ messages[-1]['content'] }}}}{{{{ {after} }}}}"


def _begin_of_its_own(prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the begin token of the prompt, if the tokenizer (and so llama.cpp) adds none."""
    if begin_token(tokenizer):
        return ""
    plain = replace(prompt, complete=True).of_text(_USER, tokenizer)
    return prompt.of_text(_USER, tokenizer).removesuffix(plain)


def ollama_template(prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a prompt template for Ollama, in Go's ``text/template``.

    The begin token is left out, because Ollama adds it if the GGUF file says so.
    """
    before, _, after = _of_user(prompt, tokenizer).partition(_USER)
    start = _literal(before)
    if (system := _of_system(prompt, tokenizer)) is not None and system[2] == after:
        first, second, _ = map(_literal, system)
        start = f"{{{{ if .System }}}}{first}{{{{ .System }}}}{second}{{{{ else }}}}{start}"
        start += "{{ end }}"
    end = _literal(_end(prompt, tokenizer))
    return f"{start}{{{{ .Prompt }}}}{_literal(after)}{{{{ .Response }}}}{end}"


def _prompt(model: ExportedModel, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate | None:
    """Return the template of the run, or else the tokenizer's own; None without one."""
    if model.prompt_template is not None:
        return read_prompt_template(model.prompt_template)
    return chat_prompt_template("tokenizer", tokenizer) if has_chat_template(tokenizer) else None


def _of_user(prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    return _without_begin(prompt.of_text(_USER, tokenizer), tokenizer)


def _of_system(
    prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, str, str] | None:
    """Return the texts before and after the system's words, and after the user's."""
    if prompt.kind != CHAT:
        return None
    turns = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        text = _without_begin(prompt.of_turns(turns, tokenizer), tokenizer)
    except UsageError:  # the template has no system's turn
        return None
    first, found, rest = text.partition(_SYSTEM)
    second, _, last = rest.partition(_USER)
    return (first, second, last) if found else None


def _end(prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that ends a turn with the line end after it, or the text in its place."""
    number, _ = end_of_turn_token(prompt, tokenizer)
    text = prompt.end_of_turn(tokenizer)
    if number is None:
        return text
    token = str(tokenizer.convert_ids_to_tokens(number))
    return token + "\n" * text.removeprefix(token).startswith("\n")


def _without_begin(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    return text.removeprefix(begin_token(tokenizer))


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
