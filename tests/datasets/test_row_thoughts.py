"""Thoughts in a record: labels where they are written, and noted where they are cut."""

import copy
from typing import Any

import pytest
from helpers.made_examples import PLAIN, example, labels, refused, turns

from llama_recipes_local.datasets.thoughts import ADDED, CUT

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
