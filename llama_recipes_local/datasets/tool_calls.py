"""Descriptions and calls of tools in a record, in the form that chat templates expect."""

from collections.abc import Mapping
from typing import Any

from llama_recipes_local.datasets.base import is_blank
from llama_recipes_local.datasets.json_texts import read_json
from llama_recipes_local.errors import refusal


def read_tools(value: object, what: str) -> list[dict[str, Any]]:
    """Return the tools that a record describes, each as ``{"type": "function", "function": ...}``.

    Raises:
        UsageError: if it is not a list of tools, or its JSON text.
    """
    if isinstance(value, str) and value.strip():
        value = read_json(value, what)
    if not value or (isinstance(value, str) and is_blank(value)):
        return []
    tools: list[Any] = value if isinstance(value, list) else [value]
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise refusal(f"{what} is not a list of tools", f"one is {tool!r:.80}")
    return [_whole_tool(dict(tool)) for tool in tools]


def _whole_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if "function" in tool else {"type": "function", "function": tool}


def read_calls(value: object, what: str) -> list[dict[str, Any]]:
    """Return calls of tools with arguments as objects, as chat templates expect them.

    Raises:
        UsageError: if one has no name, or its arguments are neither an object nor its JSON text.
    """
    if isinstance(value, str):
        value = read_json(value, f"the tool call in {what}")
    calls = []
    given: list[Any] = value if isinstance(value, list) else [value]
    for call in given:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise refusal(
                f"{what} has a tool call without a name",
                f"it is {call!r:.80}",
                'write {"function": {"name": ..., "arguments": ...}}',
            )
        function = dict(function)
        if "parameters" in function and "arguments" not in function:  # as Llama 3.1 writes it
            function["arguments"] = function.pop("parameters")
        if function.get("arguments") is not None:
            function["arguments"] = _arguments(function, what)
        about = {k: v for k, v in call.items() if k not in ("function", *function) and v}
        calls.append({"type": "function", **about, "function": function})
    return calls


def _arguments(function: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return the arguments of a call as an object; a blank text is none."""
    named = f"the arguments of {function['name']!r} in {what}"
    given = function["arguments"]
    if isinstance(given, str):
        given = read_json(given, named) if given.strip() else {}
    if not isinstance(given, Mapping):
        why = f"templates write them as an object, and it is {given!r:.80}"
        raise refusal(f"{named} are no JSON object", why, 'write {"name": value, ...}')
    return given
