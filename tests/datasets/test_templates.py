"""Turns become the text of each chat format, and what the assistant says is told exactly."""

import copy
from typing import Any

import pytest

from llama_recipes_local.datasets.chat_examples import OTHER_PROMPT, render_chat
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.templates import TEMPLATES
from llama_recipes_local.errors import Problem, UsageError

SYSTEM = {"role": "system", "content": "Be kind."}
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See\nyou."},
]
EXPECTED = {
    "llama2": (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello. </s>"
        "<s>[INST] Bye [/INST] See\nyou. </s>",
        [" Hello. </s>", " See\nyou. </s>"],
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSee\nyou.<|eot_id|>",
        ["Hello.<|eot_id|>", "See\nyou.<|eot_id|>"],
    ),
    "chatml": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\nSee\nyou.<|im_end|>\n",
        ["Hello.<|im_end|>", "See\nyou.<|im_end|>"],
    ),
    "guanaco": (
        "Be kind.\n### Human: Hi### Assistant: Hello.### Human: Bye### Assistant: See\nyou.",
        [" Hello.", " See\nyou."],
    ),
}
# Each turn's role, text and end, and nothing else: what most templates do.
PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# An earlier assistant turn loses its words once another turn follows, as thoughts do in some.
FORGETFUL = (
    "{% for m in messages %}[{{ m.role }}]"
    "{{ m.content if loop.last or m.role == 'user' else '...' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def with_template(tokenizer: Any, template: Any) -> Any:
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return own


def without_blocks(template: str) -> str:
    """The template without its generation blocks, so that turns are told by prefixes."""
    open_blocks = template.replace("{%- generation -%}", "{%- if true -%}")
    return open_blocks.replace("{%- endgeneration -%}", "{%- endif -%}")


def said(example: Marked) -> list[str]:
    assert example.spans is not None
    return [example.text[start:end] for start, end in example.spans]


def refusal(messages: Any, tokenizer: Any, name: str = "tokenizer") -> Problem:
    with pytest.raises(UsageError) as refused:
        render_chat(messages, tokenizer, name, "assistant", "line 3 of chat.jsonl")
    (problem,) = refused.value.problems
    return problem


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_format(name: str, chatty: Any) -> None:
    example = render_chat([SYSTEM, *CHAT], chatty, name, "assistant", "line 1")
    text, words = EXPECTED[name]
    assert example.text == text
    assert said(example) == words
    assert example.complete == (name != "guanaco")
    everything = render_chat([SYSTEM, *CHAT], chatty, name, "all", "line 1")
    assert everything == Marked(text, None, example.complete)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [CHAT[:2], CHAT, [SYSTEM, *CHAT], CHAT[:1], CHAT[:3]])
def test_generation_blocks_and_prefixes_give_the_same_spans(
    name: str, messages: Any, chatty: Any
) -> None:
    blocks = TEMPLATES[name].text
    bare = without_blocks(blocks)
    assert "generation -%}" in blocks and "generation -%}" not in bare
    marked = render_chat(messages, with_template(chatty, blocks), "tokenizer", "assistant", "")
    assert marked == render_chat(
        messages, with_template(chatty, bare), "tokenizer", "assistant", ""
    )
    assert len(said(marked)) == sum(turn["role"] == "assistant" for turn in messages)


@pytest.mark.parametrize("name", ["llama3", "chatml", "guanaco"])
def test_the_assistant_may_speak_first_or_twice(name: str, chatty: Any) -> None:
    messages = [CHAT[1], CHAT[0], CHAT[3], CHAT[1]]
    own = with_template(chatty, without_blocks(TEMPLATES[name].text))
    example = render_chat(messages, own, "tokenizer", "assistant", "line 1")
    first, second = EXPECTED[name][1]
    assert said(example) == [first, second, first]
    assert said(render_chat(messages, chatty, name, "assistant", "line 1")) == said(example)


def test_labels_of_a_chat_are_what_the_assistant_says(chatty: Any) -> None:
    for name, (_, words) in EXPECTED.items():
        (sample,) = encode(chatty, [render_chat(CHAT, chatty, name, "assistant", "line 1")])
        labels = [label for label in sample["labels"] if label != -100]
        end = "</s>" if name == "guanaco" else ""
        assert chatty.decode(labels) == "".join(words) + end


def test_the_models_own_template(tokenizer: Any) -> None:
    example = render_chat(CHAT, with_template(tokenizer, PLAIN), "tokenizer", "assistant", "")
    assert example.text == (
        "[user]Hi</s>[assistant]Hello.</s>[user]Bye</s>[assistant]See\nyou.</s>"
    )
    assert said(example) == ["Hello.</s>", "See\nyou.</s>"]
    assert example.complete
    several = with_template(tokenizer, {"default": PLAIN, "tools": "{{ 1 }}"})
    assert render_chat(CHAT, several, "tokenizer", "assistant", "") == example


def test_white_space_ends_a_turn_where_no_token_does(tokenizer: Any) -> None:
    lines = with_template(tokenizer, PLAIN.replace("{{ eos_token }}", "{{ '\n' }}"))
    assert said(render_chat(CHAT, lines, "tokenizer", "assistant", "")) == [
        "Hello.\n",
        "See\nyou.\n",
    ]
    both = with_template(tokenizer, PLAIN.replace("{{ eos_token }}", "{{ eos_token + '\n' }}"))
    assert said(render_chat(CHAT, both, "tokenizer", "assistant", "")) == [
        "Hello.</s>",
        "See\nyou.</s>",
    ]


def test_no_assistant_turn_means_no_label(chatty: Any) -> None:
    for name in TEMPLATES:
        assert said(render_chat(CHAT[:1], chatty, name, "assistant", "line 1")) == []


def test_a_missing_template_is_reported(tokenizer: Any) -> None:
    problem = refusal(CHAT, tokenizer)
    assert problem.what == "the model's tokenizer has no chat template"
    assert "--local_dataset.template=llama2" in problem.fix
    several = with_template(tokenizer, {"a": PLAIN, "b": PLAIN})
    assert refusal(CHAT, several).why == "it has several, and none is the default"


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    own = with_template(tokenizer, FORGETFUL)
    problem = refusal(CHAT, own)
    assert "writes turns of line 3 of chat.jsonl in another way" in problem.what
    assert "--local_dataset.labels=all" in problem.fix
    assert "--local_dataset.template=llama2" in problem.fix
    assert said(render_chat(CHAT[:2], own, "tokenizer", "assistant", "")) == ["Hello."]
    assert render_chat(CHAT, own, "tokenizer", "all", "").text == (
        "[user]Hi[assistant]...[user]Bye[assistant]See\nyou."
    )


def test_a_prompt_that_the_reply_does_not_follow_is_refused(tokenizer: Any) -> None:
    own = with_template(tokenizer, PLAIN.replace("[assistant]{% endif", "[assistant]<t>{% endif"))
    assert "in another way" in refusal(CHAT, own).what


@pytest.mark.parametrize("labels", ["assistant", "all"])
def test_a_template_that_skips_plain_text_is_refused(labels: str, tokenizer: Any) -> None:
    parts = "{% for p in m.content %}{{ p.text }}{% endfor %}"
    own = with_template(tokenizer, PLAIN.replace("{{ m.content }}", parts))
    with pytest.raises(UsageError, match="omits what the user says in line 3"):
        render_chat(CHAT, own, "tokenizer", labels, "line 3")


@pytest.mark.parametrize("name", ["llama3", "chatml"])
def test_a_format_whose_tokens_are_missing_is_refused(name: str, tokenizer: Any) -> None:
    problem = refusal(CHAT, tokenizer, name)
    assert problem.what == f"--local_dataset.template={name} is incompatible with this tokenizer"
    assert TEMPLATES[name].tokens[0] in problem.why


def test_the_unknown_token_is_not_a_formats_token(tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.unk_token = "<pad>"
    assert own.convert_tokens_to_ids("<|im_start|>") == own.unk_token_id
    assert "missing are the tokens <|im_start|>" in refusal(CHAT, own, "chatml").why


def test_llama2_strips_a_users_words(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": " Hi\n"}, CHAT[1]]
    text = render_chat(turns, tokenizer, "llama2", "assistant", "").text
    assert text == "<s>[INST] Hi [/INST] Hello. </s>"


def test_llama2_needs_the_tokens_that_begin_and_end_a_text(tokenizer: Any) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    assert "is incompatible with this tokenizer" in refusal(CHAT, endless, "llama2").what


@pytest.mark.parametrize(
    "messages", [CHAT[1:], [CHAT[0], CHAT[0]], [CHAT[0], CHAT[1], CHAT[1]], [CHAT[0], SYSTEM]]
)
def test_turns_that_a_template_does_not_support_are_refused(messages: Any, tokenizer: Any) -> None:
    problem = refusal(messages, tokenizer, "llama2")
    assert problem.what == "the chat template does not support line 3 of chat.jsonl"
    assert ", ".join(turn["role"] for turn in messages) in problem.why


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__['jinja2'] }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{% for %}",
        "{{ messages[0].content.no.such }}",
    ],
)
def test_a_template_runs_no_code(attack: str, tokenizer: Any) -> None:
    problem = refusal(CHAT, with_template(tokenizer, PLAIN + attack))
    assert problem.what == "the chat template cannot be used"


@pytest.mark.parametrize(
    ("today", "begins"),
    [
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% endif %}{{ date_string }}",
            "26 Jul 2024",
        ),
        ("Today is {{ strftime_now('%B %d, %Y') }}.", "Today is July 26, 2024."),
    ],
)
def test_a_template_that_asks_for_the_date_gives_the_same_text_every_day(
    today: str, begins: str, tokenizer: Any
) -> None:
    example = render_chat(CHAT, with_template(tokenizer, today + PLAIN), "tokenizer", "all", "")
    assert example.text.startswith(f"{begins}[user]Hi")


def test_a_prompt_that_generation_writes_otherwise_is_noted(tokenizer: Any) -> None:
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    opened = "{% if add_generation_prompt %}[assistant]END{% endif %}"
    for end, notes in (("", ()), ("\\n", (OTHER_PROMPT,))):
        own = with_template(tokenizer, turns + opened.replace("END", f"{{{{ '{end}' }}}}"))
        example = render_chat(CHAT, own, "tokenizer", "assistant", "")
        assert example.notes == notes
        assert said(example)[-1] == f"See\nyou.{tokenizer.eos_token}"
