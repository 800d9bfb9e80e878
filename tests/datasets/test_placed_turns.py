"""Turns that a template writes in another way once more follow are found, or refused.

The reference is transformers' marks of generation blocks: each template here has them, and is then
used without.
"""

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.datasets.chat_examples import CALLS, OTHER_PROMPT, render_chat
from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.placed_turns import find_turn
from llama_recipes_local.datasets.prompt_template import chat_prompt_template
from llama_recipes_local.datasets.templates import TEMPLATES, Chat
from llama_recipes_local.datasets.thoughts import ADDED, CLOSED, CUT, CUT_LAST
from llama_recipes_local.datasets.tool_calls import read_tools
from llama_recipes_local.datasets.turns import Conversation
from llama_recipes_local.errors import UsageError

# Answers after the last question have a thought, empty ones too in the last turn: as Qwen 3's.
THINKING = """
{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- if tools -%}[tools]{{ tools | tojson }}[end]{%- endif -%}
{%- for m in messages -%}
{{ '[' + m.role + ']' }}
{%- if m.role == 'assistant' -%}
{%- generation -%}
{%- if loop.last -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}
{{ m.content }}
{%- for call in m.tool_calls or [] -%}{{ '<call>' + call.function | tojson + '</call>' }}
{%- endfor -%}
{{ '[end]' }}
{%- endgeneration -%}
{%- else -%}{{ m.content + '[end]' }}
{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}
"""
# The system prompt and the tools stand in the last question, and turns alternate: as Mistral's.
MOVING = """
{%- set ns = namespace(system='', last=-1, next='user') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{%- set ns.system = m.content + '\\n\\n' -%}{%- endif -%}
{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- if m.role in ('user', 'assistant') and not m.tool_calls -%}
{%- if m.role != ns.next -%}{{ raise_exception('turns alternate') }}{%- endif -%}
{%- set ns.next = 'assistant' if m.role == 'user' else 'user' -%}
{%- endif -%}
{%- endfor -%}
{{ bos_token }}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- if loop.index0 == ns.last and tools -%}{{ '[TOOLS]' + tools | tojson + '[/TOOLS]' }}
{%- endif -%}
{{ '[INST] ' + (ns.system if loop.index0 == ns.last else '') + m.content + '[/INST]' }}
{%- elif m.role == 'tool' -%}{{ '[RESULT]' + m.content + '[/RESULT]' }}
{%- elif m.role == 'assistant' -%}
{%- generation -%}
{%- if m.tool_calls -%}{{ '[CALLS]' + m.tool_calls | tojson + eos_token }}
{%- else -%}{{ ' ' + m.content | trim + eos_token }}
{%- endif -%}
{%- endgeneration -%}
{%- endif -%}
{%- endfor -%}
"""
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "罗马"}}}
USER, TWICE = {"role": "user", "content": "Hi"}, {"role": "user", "content": "Hello."}
HELLO, BYE = ({"role": "assistant", "content": words} for words in ("Hello.", "Bye"))
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
RESULT = {"role": "tool", "content": "18 C"}
SYSTEM = {"role": "system", "content": "Be kind."}
SHAPES = {
    "a system turn": [SYSTEM, USER, HELLO, TWICE, HELLO, USER, BYE],
    "a call": [USER, CALLED, RESULT, HELLO],
    "two calls, two results": [SYSTEM, USER, CALLED, RESULT, RESULT, CALLED, RESULT, HELLO],
    "calls before another question": [USER, CALLED, RESULT, HELLO, USER, BYE],
    "a call at the end": [TWICE, HELLO, USER, CALLED],
    "answers one after the other": [USER, HELLO, HELLO, TWICE, BYE, HELLO],
}


def rendered(template: str, turns: Any, tokenizer: Any) -> Marked:
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    called = any("tool_calls" in turn for turn in turns)
    tools = read_tools([{"name": "weather"}], "") if called else []
    return render_chat(Conversation(turns, {}, tools), own, "tokenizer", "assistant", "line 1")


def without_blocks(template: str) -> str:
    assert "{%- generation -%}" in template
    return template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("template", [THINKING, MOVING], ids=["thinking", "moving"])
def test_turns_are_where_generation_blocks_mark_them(
    template: str, shape: str, tokenizer: Any
) -> None:
    turns = SHAPES[shape]
    if template == MOVING and shape == "answers one after the other":
        with pytest.raises(UsageError, match="turns alternate"):
            rendered(without_blocks(template), turns, tokenizer)
        return
    marked = rendered(template, turns, tokenizer)
    assert marked.spans
    assert len(marked.spans) == sum(turn["role"] == "assistant" for turn in turns)
    assert rendered(without_blocks(template), turns, tokenizer) == marked


@pytest.mark.parametrize(
    ("template", "masked", "left_out"),
    [
        (THINKING, [1], ["[user]Hi[end]\n"]),
        (THINKING, [3], ["\n[user]Why?[end]\n"]),
        (THINKING, [0, 5], ["[system]Be kind.[end]\n", "\n[user]Who?[end]\n"]),
        (MOVING, [1], ["[INST] Hi[/INST]"]),
        (MOVING, [3], ["[INST] Why?[/INST]"]),
        # the system prompt in the question's turn is not marked, and so trained
        (MOVING, [5], ["\n\nWho?[/INST]"]),
        (TEMPLATES["llama2"].text, [1], ["\n<</SYS>>\n\nHi [/INST]"]),
    ],
)
def test_all_is_trained_but_turns_that_are_marked(
    template: str, masked: list[int], left_out: list[str], tokenizer: Any
) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = without_blocks(template).replace("{{ bos_token }}", "")
    turns = [SYSTEM, USER, HELLO, {"role": "user", "content": "Why?"}, BYE]
    turns += [{"role": "user", "content": "Who?"}, HELLO]
    given = Conversation(turns, dict.fromkeys(masked, False), [])
    marked = render_chat(given, own, "tokenizer", "all", "line 1")
    assert marked.spans is not None
    starts = [0, *(end for _, end in marked.spans)]
    ends = [*(start for start, _ in marked.spans), len(marked.text)]
    untrained = [marked.text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert [each for each in untrained if each] == left_out


def said(example: Marked) -> list[str]:
    assert example.spans is not None
    return [example.text[start:end] for start, end in example.spans]


ENDED = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% else %}{{ eos_token }}{% endif %}"
)


def test_turns_are_found_where_a_text_ends_with_one_more_token(tokenizer: Any) -> None:
    """As Phi-3's template: the token stands after the last turn only, whoever says it."""
    example = rendered(ENDED, [USER, HELLO, TWICE, BYE], tokenizer)
    assert example.text.endswith("[assistant]Bye[end]\n</s>")
    assert said(example) == ["Hello.[end]", "Bye[end]\n</s>"]
    bare = rendered(ENDED.replace("[end]\n", ""), [USER, HELLO, TWICE, BYE], tokenizer)
    assert said(bare) == ["Hello.", "Bye</s>"]


@pytest.mark.parametrize("returned", ["[return]", "{{ eos_token }}"])
def test_turns_are_found_where_the_last_ends_in_another_token(
    returned: str, tokenizer: Any
) -> None:
    """As gpt-oss' template: the token is the end of text, and only the last answer's."""
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% if loop.last and m.role == 'assistant' and not add_generation_prompt %}RETURNED"
        "{% else %}[end]{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    ).replace("RETURNED", returned)
    example = rendered(template, [USER, HELLO, TWICE, BYE, USER, HELLO], tokenizer)
    last = returned.replace("{{ eos_token }}", tokenizer.eos_token)
    assert said(example) == ["Hello.[end]", "Bye[end]", f"Hello.{last}"]


# The result of a tool ends with a line end where more follows, and without at the end: as Hermes'.
LINED = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]\n"
    "{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% if m.role == 'tool' and not loop.last %}{{ '\n' }}{% endif %}[end]{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)


def test_a_prompt_may_differ_in_white_space_and_is_noted(tokenizer: Any) -> None:
    turns = [USER, CALLED, RESULT, HELLO, USER, CALLED, RESULT, BYE]
    example = rendered(LINED, turns, tokenizer)
    assert example.text.endswith("[tool]\n18 C\n[end][assistant]\nBye[end]")
    call = json.dumps([CALL, CALL], ensure_ascii=False) + "[end]"
    assert said(example) == [call, "Hello.[end]", call, "Bye[end]"]
    assert example.notes == (OTHER_PROMPT,)
    with pytest.raises(UsageError, match="than it prompts for them"):
        rendered(LINED.replace("{{ '\n' }}", "."), turns, tokenizer)


def test_the_template_for_tools_is_used_where_there_are_tools(tokenizer: Any) -> None:
    """As in Hermes' folders, whose default template has no place for tools."""
    own = copy.deepcopy(tokenizer)
    plain = BARE + "{% if add_generation_prompt %}[assistant]{% endif %}"
    own.chat_template = {"default": plain, "tool_use": LINED}
    tools = read_tools([{"name": "weather"}], "")
    turns = [USER, CALLED]
    reference = own.apply_chat_template(turns, tools=tools, tokenize=False)
    given = Conversation(turns, {}, tools)
    assert render_chat(given, own, "tokenizer", "assistant", "line 1").text == reference
    prompt = own.apply_chat_template(
        [USER], tools=tools, tokenize=False, add_generation_prompt=True
    )
    template = chat_prompt_template("tokenizer", own)
    assert template.of_turns([USER], own, tools) == prompt
    without = Conversation([USER, BYE], {}, [])
    assert render_chat(without, own, "tokenizer", "assistant", "line 1").text == (
        "[user]Hi[end][assistant]Bye[end]"
    )


@pytest.mark.parametrize("content", ["m.content is none", "true"])
def test_calls_are_written_as_openai_has_them_where_a_template_takes_them_so(
    content: str, tokenizer: Any
) -> None:
    """As DeepSeek's templates: arguments are text, and calls stand in the place of a content."""
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]"
        f"{{% if m.tool_calls and {content} %}}"
        "{% for call in m.tool_calls %}{{ call.function.name + call.function.arguments }}"
        "{% endfor %}{% else %}{{ m.content }}{% endif %}[end]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    arguments = '{"city": "罗马"}'
    example = rendered(template, [USER, CALLED, RESULT, BYE], tokenizer)
    assert said(example) == [f"weather{arguments}weather{arguments}[end]", "Bye[end]"]
    objects = template.replace("call.function.arguments", "call.function.arguments | tojson")
    assert said(rendered(objects, [USER, CALLED], tokenizer)) == [
        f"weather{arguments}weather{arguments}[end]"
        if content == "true"
        else f"weather{json.dumps(arguments, ensure_ascii=False)}" * 2 + "[end]"
    ]


def test_cut_thoughts_are_known_where_an_empty_one_is_written_otherwise(tokenizer: Any) -> None:
    """As Nemotron 3's template: with thoughts a line end follows, which stays once they are cut."""
    template = (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "[{{ m.role }}]\n{% if m.role == 'assistant' %}<think>"
        "{% if m.reasoning_content and loop.index0 > ns.last %}{{ '\n' + m.reasoning_content }}"
        "{{ '\n' }}{% endif %}</think>{{ '\n' if m.reasoning_content else '' }}{% endif %}"
        "{{ m.content }}[end]{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant]\n<think>\n' }}{% endif %}"
    )
    thinking = HELLO | {"reasoning_content": "Hm."}
    example = rendered(template, [USER, thinking, TWICE, thinking], tokenizer)
    assert said(example) == ["</think>\nHello.[end]", "Hm.\n</think>\nHello.[end]"]
    assert example.notes == (CUT,)


# As DeepSeek-R1-Distill's: the ending stands in the branch of the second call.
SINGLE_CALL = """
{%- for m in messages -%}
{%- if m.tool_calls -%}
{%- for call in m.tool_calls -%}
{%- if loop.first -%}{{ 'BEGIN' + call.function | tojson }}
{%- else -%}{{ call.function | tojson + 'END' + eos_token }}
{%- endif -%}
{%- endfor -%}
{%- else -%}{{ '[' + m.role + ']' + m.content + eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if tools -%}{{ tools | tojson }}{%- endif -%}
"""


@pytest.mark.parametrize("labels", ["assistant", "all"])
def test_a_call_without_its_ending_is_refused(labels: str, tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = SINGLE_CALL.replace("BEGIN", CALLS[0]).replace("END", CALLS[1])
    tools = read_tools([{"name": "weather"}], "")
    single = CALLED | {"tool_calls": [CALL]}
    with pytest.raises(UsageError, match="does not end the tool call in line 1"):
        render_chat(Conversation([USER, single], {}, tools), own, "tokenizer", labels, "line 1")
    ended = Conversation([USER, CALLED, RESULT, HELLO], {}, tools)
    assert CALLS[1] in render_chat(ended, own, "tokenizer", "all", "line 1").text


# Writes what the prompt ends with before each last answer, and cuts thoughts that are content.
BEGINS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}BEGUN"
    "{{ m.content.split('</think>', 1)[-1] if CUTS else m.content }}"
    "{% else %}{{ m.content }}{% endif %}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]BEGUN{% endif %}"
)
THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}


@pytest.mark.parametrize(
    ("begun", "cuts", "turn", "trained", "notes"),
    [
        # as Nemotron Nano v2's, which begins a thought before whatever the turn says
        ("<think>\n\n", False, THOUGHT, "Hm.\n</think>\n\nYes.[end]", ()),
        ("<think>\n\n", False, BYE, "\n</think>\n\nBye[end]", (ADDED,)),
        ("<think>\n\n", True, THOUGHT, "Hm.\n</think>\n\nYes.[end]", ()),
        # as DeepSeek-V3.1's, whose prompt closes a thought that nobody began
        ("</think>", True, THOUGHT, "Yes.[end]", (CLOSED,)),
        ("</think>", True, BYE, "Bye[end]", ()),
    ],
)
def test_a_thought_is_begun_and_closed_once(
    begun: str, cuts: bool, turn: Any, trained: str, notes: tuple[str, ...], tokenizer: Any
) -> None:
    template = BEGINS.replace("BEGUN", begun).replace("CUTS", str(cuts))
    example = rendered(template, [USER, turn], tokenizer)
    assert example.text == f"[user]Hi[end][assistant]{begun}{trained}"
    assert said(example) == [trained]
    assert example.notes == notes


def test_a_thought_is_trained_where_the_prompt_closes_one(tokenizer: Any) -> None:
    """As Qwen 3.5's without thinking: the template writes the turn's, the prompt an empty one."""
    template = BEGINS.replace("BEGUN", "", 1).replace("BEGUN", "<think>\n\n</think>\n\n")
    example = rendered(template.replace("CUTS", "False"), [USER, THOUGHT], tokenizer)
    assert said(example) == ["Hm.\n</think>\n\nYes.[end]"]
    assert example.notes == (OTHER_PROMPT,)


def test_a_marked_turn_that_is_written_elsewhere_is_refused(tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = without_blocks(MOVING)
    given = Conversation([SYSTEM, USER, HELLO, TWICE, BYE], {0: False}, [])
    with pytest.raises(UsageError, match="where no turn is marked as not trained"):
        render_chat(given, own, "tokenizer", "all", "line 1")


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        ("m.content | tojson", '{"t": 18}'),  # an object, as Llama 3.1's
        ("m.content if m.content is string else ''", '{"t": 18}'),  # text alone, as Qwen 3's
        ("'R: ' + m.content", 'R: {"t": 18}'),
        ("m.content | string", '{"t": 18}'),  # an object would be written as Python does
    ],
)
def test_an_object_that_a_tool_returns_is_written_as_json(
    written: str, inside: str, tokenizer: Any
) -> None:
    instead = f"{written} }}}}{{{{ '[end]'"
    template = without_blocks(THINKING).replace("m.content + '[end]'", instead)
    turns = [USER, CALLED, {"role": "tool", "content": {"t": 18}}, HELLO]
    assert f"[tool]{inside}[end]" in rendered(template, turns, tokenizer).text


# Keeps the last thought of a turn and what follows it, as Qwen 3's does.
LAST_THOUGHT = (
    "{% for m in messages %}[{{ m.role }}]{% if '</think>' in m.content %}<think>"
    "{{ m.content.split('</think>')[0].split('<think>')[-1] }}</think>"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize(
    "content",
    ["So. <think>Hm.</think>Yes.", "<think>Hm.</think>No.<think>Ah.</think>Yes.", "So.</think>Y"],
)
@pytest.mark.parametrize("last", [True, False])
def test_words_beside_thoughts_are_not_lost(content: str, last: bool, tokenizer: Any) -> None:
    answer = {"role": "assistant", "content": content}
    turns = [USER, answer] if last else [USER, answer, TWICE, BYE]
    if content == "So.</think>Y":  # a thought that the prompt begins
        assert "<think>So.</think>Y[end]" in rendered(LAST_THOUGHT, turns, tokenizer).text
        return
    with pytest.raises(UsageError, match="omits what the assistant says"):
        rendered(LAST_THOUGHT, turns, tokenizer)


def test_a_thought_about_thoughts_is_not_written_twice(tokenizer: Any) -> None:
    answer = {"role": "assistant", "content": "<think>A <think> is one.</think>Yes."}
    example = rendered(LAST_THOUGHT, [USER, answer], tokenizer)
    assert example.text == "[user]Hi[end][assistant]<think> is one.</think>Yes.[end]"
    assert example.notes == (CUT_LAST,)


PLAIN = (
    "{% for m in messages %}{{ between[loop.index0] }}[{{ m.role }}]{{ m.content }}[end]"
    "{% endfor %}"
)


LENGTH = "messages[1:2] | map(attribute='content') | join | length"


@pytest.mark.parametrize(
    ("between", "closing", "known"),
    [
        ("''", "", True),
        (f"{LENGTH} % 2, '', ''", "", False),
        (f"'', '', {LENGTH}", "", False),
        ("''", "[close]", False),
        ("'', '[told]'", "", False),  # and the prompt for an answer is without it
    ],
)
def test_a_turn_is_not_found_where_what_is_around_depends_on_it(
    between: str, closing: str, known: bool, tokenizer: Any
) -> None:
    opened = "{% if add_generation_prompt %}[assistant]{% else %}" + closing + "{% endif %}"
    template = f"{{% set between = [{between}] %}}{PLAIN}{opened}"
    chat = Chat(template, tokenizer, "line 1")
    turns = [USER, HELLO, TWICE]
    text = chat.render(turns)
    place = text.index("Hello.[end]"), text.index("[user]Hello.")
    assert find_turn(chat, turns, 1, text) == (place if known else None)


BARE = PLAIN.replace("{{ between[loop.index0] }}", "")
SIZED = BARE.replace("[end]", "{{ m.content | length }}")
SHORT = BARE.replace("[end]", "{{ raise_exception('long') if m.content | length > 9 else '' }}")


@pytest.mark.parametrize("template", [SIZED, SHORT])
def test_a_turn_is_not_found_by_words_that_change_or_break_the_template(
    template: str, tokenizer: Any
) -> None:
    chat = Chat(
        template + "{% if add_generation_prompt %}[assistant]{% endif %}", tokenizer, "line 1"
    )
    turns = [USER, BYE, USER]
    assert find_turn(chat, turns, 1, chat.render(turns)) is None


def test_a_turn_whose_words_are_written_otherwise_is_not_found(tokenizer: Any) -> None:
    template = BARE.replace("t }}", "t | replace('Hello', 'X') }}")
    chat = Chat(template, tokenizer, "line 1")
    turns = [USER, HELLO, TWICE]
    assert find_turn(chat, turns, 1, chat.render(turns)) is None


def test_a_thought_that_the_prompt_begins_is_not_a_label(tokenizer: Any) -> None:
    opened = "{{ '[assistant]<think>\\n' }}"
    template = without_blocks(THINKING).replace("{{ '[assistant]' }}", opened)
    example = rendered(template, SHAPES["answers one after the other"], tokenizer)
    assert example.spans is not None
    said = [example.text[start:end] for start, end in example.spans]
    assert said == ["Hello.[end]", "Hello.[end]", "Bye[end]", "\n</think>\n\nHello.[end]"]
    closed = template.replace(opened, "{{ '[assistant]<think></think>' }}")
    assert closed != template
    with pytest.raises(UsageError, match="in another way once more"):
        rendered(closed, SHAPES["answers one after the other"], tokenizer)


def test_an_empty_thought_that_the_template_writes_is_not_written_twice(tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]\n{% if m.role == 'assistant' %}<think></think>"
        "{% endif %}{{ m.content }}[end]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n<think>\n{% endif %}"
    )
    example = rendered(template, [USER, HELLO, TWICE, BYE], tokenizer)
    assert example.text.endswith("[assistant]\n<think>\n</think>Bye[end]")
    assert example.text.count("<think>") == example.text.count("</think>") == 2
    assert example.spans is not None and example.notes == (ADDED,)
    said = [example.text[start:end] for start, end in example.spans]
    assert said == ["</think>Hello.[end]", "</think>Bye[end]"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3_instruct_2507"])
def test_public_templates_are_marked_as_trl_marks_them(
    name: str, shape: str, tokenizer: Any
) -> None:
    """TRL has these templates with generation blocks, which mark newlines around a turn too."""
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL is not installed")
    folder = Path(found.origin).parent / "chat_templates"
    turns = SHAPES[shape]
    if name == "llama3":  # it has no place for calls
        turns = [turn for turn in turns if turn["role"] != "tool" and "tool_calls" not in turn]
    ours = rendered((folder / f"{name}.jinja").read_text(), turns, tokenizer)
    theirs = rendered((folder / f"{name}_training.jinja").read_text(), turns, tokenizer)
    assert ours.text == theirs.text and theirs.spans
    assert ours.spans == tuple(narrowed(span, theirs.text) for span in theirs.spans)


def narrowed(span: tuple[int, int], text: str) -> tuple[int, int]:
    """The span without the newlines at its ends."""
    said = text[slice(*span)]
    start = span[1] - len(said.lstrip("\n"))
    return start, start + len(said.strip("\n"))
