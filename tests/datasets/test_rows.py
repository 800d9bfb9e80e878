"""What a record has beside its prompt and answer: used, named, or refused."""

import copy
from typing import Any

import pytest
from helpers.made_examples import PLAIN, SYSTEM, example, labels, refused, turns

from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.datasets.rows import JOINED


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


def test_fields_of_turns_without_a_place_are_noted(chatty: Any) -> None:
    record = turns({"role": "user", "content": "Hi", "name": "Ann", "id": 3}, "Yo")
    assert example(record, chatty, PLAIN).notes == ("'id' of turns", "'name' of turns")
    uses = PLAIN.replace("m.role + '\n'", "m.role + (m.name or '') + '\n'")
    assert "userAnn" in example(record, chatty, uses).text
