"""Tools in a record: calls, arguments and results are as the template has them, or refused."""

import json
from typing import Any

import pytest
from helpers.made_examples import PLAIN, example, labels, refused, turns

# Tools and calls as Llama 3.1 writes them: one call a turn, without the turn's content.
TOOLS = (
    "{{ bos_token }}{% if tools %}{{ 'tools:' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{% endif %}{% for m in messages %}{{ '[' + m.role + ']' }}"
    "{% if 'tool_calls' in m %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{% set f = m.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' + f.arguments | tojson + '}' }}"
    "{% elif m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


CALL = {"name": "weather", "arguments": {"city": "Oslo"}}


CALLED = '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": CALL}]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": CALL | {"arguments": '{"city": "Oslo"}'}}],
        },
        {"role": "assistant", "content": None, "function_call": CALL},
        {"from": "function_call", "value": json.dumps(CALL)},
    ],
)
def test_a_tool_call_and_its_result_are_as_the_template_has_them(turn: Any, chatty: Any) -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    result = {"role": "tool", "tool_call_id": "1", "content": "18 C"}
    record = turns("Warm?", turn, result, {"role": "assistant", "content": "18 degrees."})
    record |= {"tools": json.dumps([tool])}
    made = example(record, chatty, TOOLS)
    assert made.text == (
        f"<s>tools:{json.dumps(tool)}[user]Warm?<|eot_id|>[assistant]{CALLED}"
        '[tool]"18 C"<|eot_id|>[assistant]18 degrees.<|eot_id|>'
    )
    assert labels(record, chatty, TOOLS) == [CALLED, "18 degrees.<|eot_id|>"]
    assert made.notes == ("'tool_call_id' of turns",)
    bare = record | {"tools": [{"name": "weather"}]}
    assert example(bare, chatty, TOOLS) == made


@pytest.mark.parametrize(
    ("arguments", "what", "why"),
    [
        ("{'city': 'Oslo'}", "is text, not JSON", "Expecting property name"),
        ('{"city": "Oslo"', "is text, not JSON", "Expecting"),
        ('{"city": "Oslo", "city": "Rome"}', "cannot be read", "the key 'city' is there more"),
        ("[1]", "are no JSON object", "it is [1]"),
        ("weather in Oslo", "is text, not JSON", "it begins 'weather in Oslo'"),
    ],
)
def test_arguments_that_are_no_object_are_refused(
    arguments: str, what: str, why: str, chatty: Any
) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": CALL | {"arguments": arguments}}]}
    problem = refused(turns("Warm?", call), chatty, TOOLS)
    named = "the arguments of 'weather' in turn 2 of 'messages' in line 1 of a.jsonl"
    assert problem.what == f"{named} {what}"
    assert why in problem.why and "local_dataset.format=text" not in problem.fix


@pytest.mark.parametrize("column", ["tools", "history"])
def test_a_column_whose_json_is_broken_is_not_trained_as_text(column: str, chatty: Any) -> None:
    problem = refused(turns("Hi", "Yo") | {column: "[{'name': 'calc'}]"}, chatty, TOOLS)
    assert problem.what == f"{column!r} in line 1 of a.jsonl is text, not JSON"
    assert problem.fix == "write it as json.dumps does, or remove the record"


def test_arguments_under_another_name_and_none_at_all(chatty: Any) -> None:
    def call(**function: Any) -> Any:
        return {"role": "assistant", "tool_calls": [{"function": {"name": "weather"} | function}]}

    parameters = turns("Warm?", call(parameters={"city": "Oslo"}))
    assert labels(parameters, chatty, TOOLS) == [CALLED]
    none = CALLED.replace('{"city": "Oslo"}', "{}")
    assert labels(turns("Warm?", call(arguments="")), chatty, TOOLS) == [none]


def test_tool_calls_without_a_place_are_refused(chatty: Any) -> None:
    call = {"role": "assistant", "content": "I look.", "tool_calls": [{"function": CALL}]}
    record = turns("Warm?", call)
    expected = "the chat template has no place for tool_calls: line 1 of a.jsonl"
    assert refused(record, chatty, PLAIN).what == expected
    assert refused(turns("Warm?", call | {"content": None}), chatty, PLAIN).what == expected
    tools = turns("Hi", "Yo") | {"tools": [{"name": "weather"}]}
    assert refused(tools, chatty, PLAIN).what == expected.replace("tool_calls", "tools")
    # content that the template leaves out beside a call
    assert "omits what the assistant says" in refused(record, chatty, TOOLS).what
    two = call | {"content": "", "tool_calls": [{"function": CALL}] * 2}
    assert "one call at once" in refused(turns("Warm?", two), chatty, TOOLS).why


@pytest.mark.parametrize("name", ["llama2", "guanaco"])
def test_a_format_without_tools_refuses_a_tools_turn(name: str, chatty: Any) -> None:
    record = turns("Hi", "Yo", {"role": "tool", "content": "18 C"})
    assert "does not support" in refused(record, chatty, template=name).what
