"""What a record has beside its prompt and answer: used, named, or refused."""

import copy
import json
from typing import Any

import pytest

from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.datasets.layouts import find_layout
from llama_recipes_local.datasets.rows import JOINED, RowFormatter
from llama_recipes_local.datasets.templates import TEMPLATES
from llama_recipes_local.datasets.thoughts import ADDED, CUT
from llama_recipes_local.errors import Problem, UsageError

# An instruct model's: a system turn of its own where there is none.
PLAIN = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nI help.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = "<|im_start|>system\nI help.<|im_end|>\n"
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
# Thoughts are cut out of answers; the prompt begins one, or does not.
OLDER = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'A: ' + m.content.split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)
NEWER = OLDER.replace("{{ 'A: ' }}{% endif", "{{ 'A: <think>\n' }}{% endif")
# Keeps the thoughts of the last answer, and writes an empty one where it has none.
KEEPS_LAST = (
    "{% for m in messages %}{{ '[' + m.role + ']' }}{% if m.role == 'assistant' and loop.last %}"
    "{% set t = m.reasoning_content or '' %}{{ '<think>\n' + t + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip() + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def example(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> Any:
    """A record as a line of a file becomes an example."""
    if own:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = own
    place = ("line 1 of a.jsonl", record)
    layout = find_layout(place, "auto", {})
    chosen = {"template": "auto", "labels": "assistant"} | options
    return RowFormatter(layout, **chosen)(place, tokenizer)


def labels(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> list[str]:
    """The stretches of a record that are trained."""
    made = example(record, tokenizer, own, **options)
    assert isinstance(made, Marked) and made.spans is not None
    return [made.text[start:end] for start, end in made.spans]


def refused(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> Problem:
    with pytest.raises(UsageError) as error:
        example(record, tokenizer, own, **options)
    (problem,) = error.value.problems
    return problem


def turns(*said: Any) -> dict[str, Any]:
    """Messages, of the user and the assistant in turn unless they are whole."""
    messages = []
    for number, each in enumerate(said):
        role = ("user", "assistant")[number % 2]
        messages.append(each if isinstance(each, dict) else {"role": role, "content": each})
    return {"messages": messages}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "completion": "Yo"},
        {"instruction": "Hi", "output": "Yo"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
    ],
)
def test_an_instruct_models_template_is_used_for_every_layout(record: Any, chatty: Any) -> None:
    made = example(record, chatty, PLAIN)
    assert made.text == (
        f"{SYSTEM}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    )
    assert labels(record, chatty, PLAIN) == ["Yo<|im_end|>"]


def test_without_a_chat_template_prompts_stay(tokenizer: Any) -> None:
    assert isinstance(example({"instruction": "Hi", "output": "Yo"}, tokenizer), Continuation)
    assert example({"prompt": "Hi ", "completion": "Yo"}, tokenizer) == Pair("Hi ", "Yo")
    assert example({"text": "Hi"}, tokenizer, PLAIN) == Marked("Hi")


@pytest.mark.parametrize(
    ("prompt", "response", "trained", "notes"),
    [
        ("How?", "Put it.", " Put it.", (JOINED,)),
        ("How? ", "Put it.", "Put it.", ()),
        ("How?\n", "Put it.", "Put it.", ()),
        ("How?", "\nPut it.", "\nPut it.", ()),
        ("怎么?", "放。", "放。", ()),
        ("怎么。", "Put it.", "Put it.", ()),
        ("カギは", "ここ", "ここ", ()),
        ("어떻게", "놓다", " 놓다", (JOINED,)),
    ],
)
def test_a_prompt_and_a_completion_are_not_one_word(
    prompt: str, response: str, trained: str, notes: tuple[str, ...], tokenizer: Any
) -> None:
    record = {"prompt": prompt, "completion": response}
    made = example(record, tokenizer)
    assert (made, made.notes) == (Pair(prompt, trained), notes)
    everything = example(record, tokenizer, labels="all")
    assert (everything, everything.notes) == (Marked(prompt + trained), notes)


def test_a_system_column_is_the_first_turn(chatty: Any) -> None:
    record = {
        "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
        "system": "Answer as a pirate.",
        "tools": "",
    }
    made = example(record, chatty, PLAIN)
    assert made.text.startswith("<|im_start|>system\nAnswer as a pirate.<|im_end|>\n<|im_start|>u")
    assert "I help" not in made.text and made.notes == ()
    twice = record | turns({"role": "system", "content": "Answer as a pirate. "}, "Hi", "Yo")
    del twice["conversations"]
    twice["messages"][1:] = turns("Hi", "Yo")["messages"]
    assert example(twice, chatty, PLAIN).text.count("pirate") == 1
    twice["system"] = "Be short."
    assert refused(twice, chatty, PLAIN).what == "line 1 of a.jsonl has two system prompts"


@pytest.mark.parametrize(
    "history",
    [
        [["What of Spain?", "Madrid."]],
        '[["What of Spain?", "Madrid."]]',
        [{"role": "user", "content": "What of Spain?"}, {"from": "gpt", "value": "Madrid."}],
    ],
)
def test_a_history_comes_before_the_question(history: Any, chatty: Any) -> None:
    record = {"instruction": "And of Italy?", "input": "", "output": "Rome.", "history": history}
    made = example(record | {"system": "Be short."}, chatty, PLAIN)
    assert made.text == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat of Spain?<|im_end|>\n"
        "<|im_start|>assistant\nMadrid.<|im_end|>\n<|im_start|>user\nAnd of Italy?<|im_end|>\n"
        "<|im_start|>assistant\nRome.<|im_end|>\n"
    )
    assert labels(record, chatty, PLAIN) == ["Madrid.<|im_end|>", "Rome.<|im_end|>"]


@pytest.mark.parametrize("column", ["system", "history", "tools", "System"])
def test_what_goes_around_a_record_is_refused_where_it_has_no_place(
    column: str, tokenizer: Any
) -> None:
    record = {"instruction": "Hi", "output": "Yo", column: [["a", "b"]]}
    problem = refused(record, tokenizer)
    assert problem.what == f"the template alpaca has no place for {column!r}: line 1 of a.jsonl"
    assert "--local_dataset.template=llama2 or guanaco" in problem.fix
    assert example(record | {column: ""}, tokenizer).notes == ()


@pytest.mark.parametrize("column", ["images", "Videos", "audios"])
def test_a_record_of_more_than_text_is_refused(column: str, chatty: Any) -> None:
    record = {"instruction": "<image>What?", "output": "A cat."}
    problem = refused(record | {column: ["cat.png"]}, chatty)
    assert problem.what.endswith(f"has {column!r}")
    assert "skip_bad_rows=True" in problem.fix
    assert example(record | {column: []}, chatty) == example(record, chatty)
    as_text = {"text": "A cat.", column: ["cat.png"]}
    assert example(as_text, chatty).notes == (f"column {column!r}",)


def test_what_a_record_sets_of_the_template_is_refused_with_what_sets_it(chatty: Any) -> None:
    """The line of the message makes the text that transformers makes of the switch."""
    own = "{{ 'S' if short else 'L' }}" + PLAIN
    record = turns("Hi", "Yo")
    switched = record | {"chat_template_kwargs": {"short": True, "other": 1}}
    problem = refused(switched, chatty, own)
    assert "sets short of the chat template" in problem.what
    assert "{%- set short = True -%}, and remove" in problem.fix
    line = "{%- set short = True -%}"
    tokenizer = copy.deepcopy(chatty)
    tokenizer.chat_template = own
    expected = tokenizer.apply_chat_template(record["messages"], tokenize=False, short=True)
    assert example(record, chatty, line + own).text == expected
    unread = example(switched, chatty, PLAIN)
    assert unread.notes == ("column 'chat_template_kwargs'",)


def test_a_history_that_is_no_history_is_refused(chatty: Any) -> None:
    record = {"prompt": "Hi", "completion": "Yo", "history": ["a", "b"]}
    problem = refused(record, chatty, PLAIN)
    assert problem.what == "'history' in line 1 of a.jsonl is not a list of pairs"


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"masked": True}],
)
@pytest.mark.parametrize("own", [PLAIN, TEMPLATES["chatml"].text])
def test_turns_that_are_marked_as_not_trained_are_no_labels(
    mark: Any, own: str, chatty: Any
) -> None:
    wrong = {"role": "assistant", "content": "Lyon."} | mark
    right = {"role": "assistant", "content": "Paris.", "weight": 1}
    record = turns("Capital?", wrong, "No.", right)
    assert labels(record, chatty, own) == ["Paris.<|im_end|>"]
    everything = "".join(labels(record, chatty, own, labels="all"))
    assert "Lyon" not in everything and "Capital?" in everything and "Paris." in everything
    assert example(record, chatty, own).notes == ()
    (sample,) = encode(chatty, [example(record, chatty, own)])
    assert chatty.decode([i for i in sample["labels"] if i >= 0]) == "Paris.<|im_end|>"


@pytest.mark.parametrize(
    ("mark", "what"),
    [
        ({"weight": 0.5}, "has weight 0.5"),
        ({"train": "perhaps"}, "has train 'perhaps'"),
        ({"weight": 0, "train": True}, "is marked as trained and as not trained"),
    ],
)
def test_marks_that_are_neither_yes_nor_no_are_refused(mark: Any, what: str, chatty: Any) -> None:
    problem = refused(turns("Hi", {"role": "assistant", "content": "Yo"} | mark), chatty, PLAIN)
    assert problem.what == f"turn 2 of 'messages' in line 1 of a.jsonl {what}"


def test_a_mark_on_a_users_turn_is_noted_or_obeyed(chatty: Any) -> None:
    marked = {"role": "user", "content": "Hi", "train": True}
    assert any(
        "marks on turns" in note for note in example(turns(marked, "Yo"), chatty, PLAIN).notes
    )
    left_out = turns({"role": "user", "content": "Hi", "train": False}, "Yo")
    assert "".join(labels(left_out, chatty, PLAIN, labels="all")) == (
        f"{SYSTEM}<|im_start|>assistant\nYo<|im_end|>\n".removeprefix(SYSTEM)
    )


@pytest.mark.parametrize(
    ("mark", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": "0.0"}, False),
        ({"sample_weight": 0}, False),
        ({"train": False}, False),
        ({"masked": True}, False),
        ({"weight": 1}, True),
        ({"weight": None}, True),
    ],
)
@pytest.mark.parametrize("kind", ["turns", "pair", "text", "everything"])
def test_a_record_that_is_marked_as_not_trained_has_no_label(
    mark: Any, trained: bool, kind: str, chatty: Any
) -> None:
    record = {
        "turns": turns("Hi", "Yo", "Hi", {"role": "assistant", "content": "Yo", "weight": 1}),
        "everything": turns("Hi", "Yo"),
        "pair": {"prompt": "Hi ", "completion": "Yo"},
        "text": {"text": "Hi"},
    }[kind] | mark
    how = {"labels": "all"} if kind == "everything" else {}
    made = example(record, chatty, PLAIN if kind in ("turns", "everything") else "", **how)
    (sample,) = encode(chatty, [made])
    assert any(label >= 0 for label in sample["labels"]) == trained
    assert made.notes == ()


def test_other_weights_of_a_record_are_refused_and_other_columns_are_named(chatty: Any) -> None:
    record = {"prompt": "Hi", "completion": "Yo"}
    problem = refused(record | {"weight": 0.5}, chatty, PLAIN)
    assert problem.what == "line 1 of a.jsonl has weight 0.5" and "rename it" in problem.fix
    both = refused(record | {"weight": 0, "train": True}, chatty, PLAIN)
    assert both.what == "line 1 of a.jsonl is marked as trained and as not trained"
    made = example(record | {"loss": 1.25, "train": "IC 204"}, chatty, PLAIN)
    assert set(made.notes) == {"column 'loss'", "column 'train'"}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("blank", ["", " \n", None])
def test_a_conversation_with_a_blank_turn_is_blank(place: int, blank: Any, chatty: Any) -> None:
    said = ["Spain?", "Madrid.", "Italy?", "Rome."]
    said[place] = blank
    assert example(turns(*said), chatty, PLAIN) is None
    history: list[Any] = [[said[0], said[1]]]
    for earlier in (history, turns(*said[:2])["messages"]):
        record = {"prompt": said[2], "completion": said[3], "history": earlier}
        assert example(record, chatty, PLAIN) is None


def test_marks_of_a_historys_turns_are_obeyed(chatty: Any) -> None:
    earlier = turns("Spain?", {"role": "assistant", "content": "Lisbon.", "weight": 0})["messages"]
    record = {"prompt": "Italy?", "completion": "Rome.", "history": earlier, "system": "Be short."}
    assert labels(record, chatty, PLAIN) == ["Rome.<|im_end|>"]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": "Yo", "value": "No"}, "content 'Yo' and value 'No'"),
        ({"role": "user", "from": "gpt"}, "role 'user' and from 'gpt'"),
        ({"from": "function_call"}, "role 'assistant' and from 'function_call'"),
        ({"reasoning": "Two.", "thinking": "Three."}, "reasoning 'Two.' and thinking 'Three.'"),
        (
            {"tool_calls": [{"function": {"name": "a"}}], "function_call": {"name": "b"}},
            "tool_calls ",
        ),
    ],
)
def test_a_turn_that_says_two_things_is_refused(turn: Any, said: str, chatty: Any) -> None:
    both = {"role": "assistant", "from": "gpt", "content": "Yo"} | turn
    problem = refused(turns("Hi", both), chatty, PLAIN)
    assert problem.what == "turn 2 of 'messages' in line 1 of a.jsonl says two things"
    assert said in problem.why
    same = {"role": "assistant", "from": "gpt", "content": "Yo", "value": "Yo"}
    assert labels(turns("Hi", same), chatty, PLAIN) == ["Yo<|im_end|>"]


def test_a_name_beside_a_role_is_a_field_of_the_turn(chatty: Any) -> None:
    named = turns("Hi", {"role": "assistant", "from": "Bob", "content": "Yo"})
    assert labels(named, chatty, PLAIN) == ["Yo<|im_end|>"]
    assert example(named, chatty, PLAIN).notes == ("'from' of turns",)
    assert example(turns("Hi", "Yo"), chatty, PLAIN).notes == ()


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


# TRL's prompts and completions of turns: only the completion is trained.
ASKED = [{"role": role, "content": words} for role, words in (("user", "Hi"), ("assistant", "Yo"))]
QUESTION, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Four."}


@pytest.mark.parametrize("prompt", ["2+2?", [QUESTION], [*ASKED, QUESTION]])
@pytest.mark.parametrize("completion", ["Four.", [ANSWER]])
@pytest.mark.parametrize("names", [("prompt", "completion"), ("input", "output")])
def test_prompts_and_completions_may_be_turns(
    prompt: Any, completion: Any, names: tuple[str, str], chatty: Any
) -> None:
    record = dict(zip(names, (prompt, completion), strict=True))
    made = example(record, chatty, PLAIN)
    assert labels(record, chatty, PLAIN) == ["Four.<|im_end|>"]
    before = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    assert made.text == (
        f"{SYSTEM}{before if len(prompt) == 3 else ''}<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\nFour.<|im_end|>\n"
    )
    assert example(record, chatty, PLAIN, labels="all").spans is None


def test_prompts_of_turns_need_a_chat_template(tokenizer: Any) -> None:
    problem = refused({"prompt": [QUESTION], "completion": [ANSWER]}, tokenizer)
    assert problem.what == "'prompt' and 'completion' in line 1 of a.jsonl are turns"
    assert problem.fix.startswith("name a chat template: --local_dataset.template=")


@pytest.mark.parametrize("record", [{"prompt": [QUESTION], "completion": ""}])
def test_a_prompt_of_turns_without_an_answer_is_blank(record: Any, chatty: Any) -> None:
    assert example(record, chatty, PLAIN) is None


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


def test_fields_of_turns_without_a_place_are_noted(chatty: Any) -> None:
    record = turns({"role": "user", "content": "Hi", "name": "Ann", "id": 3}, "Yo")
    assert example(record, chatty, PLAIN).notes == ("'id' of turns", "'name' of turns")
    uses = PLAIN.replace("m.role + '\n'", "m.role + (m.name or '') + '\n'")
    assert "userAnn" in example(record, chatty, uses).text


THOUGHT = "<think>\nTwo and two.\n</think>\n\n"


def test_thoughts_that_a_template_writes_are_labels(chatty: Any) -> None:
    assert labels(turns("2+2?", f"{THOUGHT}Four."), chatty, PLAIN) == [f"{THOUGHT}Four.<|im_end|>"]
    apart = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    problem = refused(turns("2+2?", apart), chatty, PLAIN)
    assert problem.what == (
        "the chat template has no place for reasoning_content: line 1 of a.jsonl"
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": f"{THOUGHT}Four."},
        {"role": "assistant", "content": f"{THOUGHT.removeprefix('<think>')}Four."},
        {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."},
        {"role": "assistant", "content": "Four.", "reasoning": "Two and two."},
    ],
)
@pytest.mark.parametrize("own", [OLDER, NEWER])
@pytest.mark.parametrize("earlier", [[], ["1+1?", f"{THOUGHT}Two.", "Thanks.", "Yes."]])
def test_thoughts_that_a_template_cuts_out_are_labels_of_the_last_turn(
    answer: Any, own: str, earlier: list[str], chatty: Any
) -> None:
    record = turns(*earlier, "2+2?", answer)
    made = example(record, chatty, own)
    before = "Q: 1+1?\nA: \n\nTwo.</s>Q: Thanks.\nA: Yes.</s>" if earlier else ""
    assert made.text == f"<s>{before}Q: 2+2?\nA: {THOUGHT}Four.</s>"
    prompt = "<think>\n" if own is NEWER else ""
    *others, last = labels(record, chatty, own)
    assert last == f"{THOUGHT.removeprefix(prompt)}Four.</s>"
    assert [other.strip() for other in others] == (["Two.</s>", "Yes.</s>"] if earlier else [])
    assert made.notes == ((CUT,) if earlier else ())


# The template's own words have the names that thoughts may have.
SPEAKS_OF_IT = (
    "{{ 'Write your reasoning in <think></think>. ' }}{% if thinking %}{{ 'Think.' }}{% endif %}"
    + PLAIN.partition("{% endif %}")[2]
)


def test_a_template_that_speaks_of_reasoning_has_no_field_for_it(chatty: Any) -> None:
    apart = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    record = turns("2+2?", apart)
    assert labels(record, chatty, SPEAKS_OF_IT) == [f"{THOUGHT}Four.<|im_end|>"]
    assert example(record, chatty, SPEAKS_OF_IT).notes == ()


@pytest.mark.parametrize("read", ["m.thinking", "m['thinking']", 'm.get("thinking")'])
@pytest.mark.parametrize("writes", [True, False])
def test_thoughts_are_in_the_field_that_a_template_reads(
    read: str, writes: bool, chatty: Any
) -> None:
    apart = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    written = f"{{% if {read} %}}{{{{ {read} + ' ' }}}}{{% endif %}}"
    if not writes:
        written = f"{{% if {read} and mode %}}{{{{ {read} }}}}{{% endif %}}"
    own = PLAIN.replace("m.content", "'' }}" + written + "{{ m.content")
    if writes:
        assert labels(turns("2+2?", apart), chatty, own) == ["Two and two. Four.<|im_end|>"]
    else:
        assert "omits what the assistant says" in refused(turns("2+2?", apart), chatty, own).what


def test_what_is_trained_follows_what_generation_is_prompted_with(chatty: Any) -> None:
    for own in (OLDER, NEWER, KEEPS_LAST):
        answer = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
        for record in (turns("2+2?", answer), turns("2+2?", "Four.")):
            made = example(record, chatty, own)
            tokenizer = copy.deepcopy(chatty)
            tokenizer.chat_template = own
            prompted = tokenizer.apply_chat_template(
                record["messages"][:1], tokenize=False, add_generation_prompt=True
            )
            ((start, end),) = made.spans
            assert (made.text[:start], end) == (prompted, len(made.text.rstrip()))
            assert made.notes == (
                (ADDED,) if own is NEWER and len(record["messages"][1]) == 2 else ()
            )


@pytest.mark.parametrize("apart", [True, False])
def test_cut_thoughts_are_noted_turn_by_turn(apart: bool, chatty: Any) -> None:
    """As Qwen 3's template: thoughts are cut, with the empty lines, up to the last question."""
    own = (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{{ '[' + m.role + ']' }}"
        "{% set thought = m.reasoning_content or m.content.split('</think>')[0][8:-1] %}"
        "{% set words = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% if m.role == 'assistant' and loop.index0 > ns.last and thought %}"
        "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ words + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    said: Any = {"role": "assistant", "content": f"{THOUGHT}Two."}
    if apart:
        said = {"role": "assistant", "content": "Two.", "reasoning_content": "Two and two."}
    made = example(turns("1+1?", said, "Sure?", said, said), chatty, own)
    assert made.text.count(THOUGHT) == 2 and made.notes == (CUT,)


def test_thoughts_that_are_kept_in_the_last_turn_only(chatty: Any) -> None:
    thinking = {"role": "assistant", "content": "Two.", "reasoning_content": "One and one."}
    record = turns("1+1?", thinking, "2+2?", thinking | {"content": "Four."})
    assert labels(record, chatty, KEEPS_LAST) == [
        "Two.</s>",
        "<think>\nOne and one.\n</think>\n\nFour.</s>",
    ]
    assert example(record, chatty, KEEPS_LAST).notes == (CUT,)
