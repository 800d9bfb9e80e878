"""Rows as public data sets have them: each is read rightly, or refused in words of its own."""

import json
from typing import Any

import pytest

from llama_recipes_local.datasets.layouts import find_layout
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.turns import read_conversation
from llama_recipes_local.errors import UsageError

# name, a record, its turns by hand, and the columns that are named as left out
READ: list[tuple[str, dict[str, Any], list[str], set[str]]] = [
    ("GSM8K", {"question": "1+1?", "answer": "#### 2"}, ["1+1?", "#### 2"], set()),
    (
        "MetaMathQA",
        {"type": "GSM", "query": "1+1?", "original_question": "1?", "response": "2"},
        ["1+1?", "2"],
        {"type", "original_question"},
    ),
    (
        "OpenOrca",
        {"id": "1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."},
        ["Be brief.", "Why?", "So."],
        {"id"},
    ),
    (
        "Dolly",
        {"instruction": "Sum up.", "context": "Long.", "response": "L.", "category": "x"},
        ["Sum up.\nLong.", "L."],
        {"category"},
    ),
    (
        "Dolly, no context",
        {"instruction": "Hi", "context": "", "response": "Yo"},
        ["Hi", "Yo"],
        set(),
    ),
    ("Belle", {"instruction": "写诗", "input": "", "output": "诗"}, ["写诗", "诗"], set()),
    (
        "Firefly",
        {"kind": "NLI", "input": "前提", "target": "蕴含"},
        ["前提", "蕴含"],
        {"kind"},
    ),
    (
        "Alpaca-GPT4 in two languages",
        {
            "instruction_zh": "问",
            "instruction": "Ask",
            "input_zh": "",
            "input": "it",
            "output_zh": "答",
            "output": "Said",
        },
        ["Ask\nit", "Said"],
        {"instruction_zh", "output_zh"},
    ),
    (
        "COIG-CQIA",
        {
            "instruction": "问",
            "input": "",
            "output": "答",
            "domain": ["百科"],
            "task_type": {"major": ["问答"]},
            "answer_from": "human",
        },
        ["问", "答"],
        {"domain", "task_type", "answer_from"},
    ),
    (
        "WizardLM",
        {
            "idx": "a",
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        },
        ["Q", "A"],
        {"idx"},
    ),
    ("Magicoder Evol", {"instruction": "Sort.", "response": "sorted"}, ["Sort.", "sorted"], set()),
    (
        "Magicoder OSS",
        {"lang": "py", "seed": "x", "problem": "Sort.", "solution": "sorted"},
        ["Sort.", "sorted"],
        {"lang", "seed"},
    ),
    (
        "UltraChat",
        {
            "prompt": "Q",
            "prompt_id": "7",
            "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
        },
        ["Q", "A"],
        {"prompt", "prompt_id"},
    ),
    ("a source", {"question": "Q", "answer": "A", "source": "web"}, ["Q", "A"], {"source"}),
    ("a user's name", {"question": "Q", "answer": "A", "user": "ann"}, ["Q", "A"], {"user"}),
    ("translation", {"source": "Ja", "target": "Yes"}, ["Ja", "Yes"], set()),
    (
        "SQL with a context",
        {"answer": "SELECT 1", "question": "One?", "context": "CREATE TABLE t"},
        ["One?\nCREATE TABLE t", "SELECT 1"],
        set(),
    ),
    (
        "Zhihu-KOL",
        {"INSTRUCTION": "问", "RESPONSE": "答", "SOURCE": "Zhihu", "METADATA": "{}"},
        ["问", "答"],
        {"SOURCE", "METADATA"},
    ),
    (
        "medical-o1",
        {"Question": "Q", "Complex_CoT": "hm", "Response": "A"},
        ["Q", "A"],
        {"Complex_CoT"},
    ),
    ("Aya", {"inputs": "Q", "targets": "A", "language": "en"}, ["Q", "A"], {"language"}),
    ("问题", {"问题": "问", "回答": "答"}, ["问", "答"], set()),
    (
        "Capybara",
        {"conversation": [{"input": "Q", "output": "A"}, {"input": "R", "output": "B"}]},
        ["Q", "A", "R", "B"],
        set(),
    ),
    (
        "ShareGPT in Chinese and English",
        {"conversation_id": "1", "conversation": [{"human": "Q", "assistant": "A"}]},
        ["Q", "A"],
        {"conversation_id"},
    ),
    (
        "XTuner",
        {"conversation": [{"system": "Be brief.", "input": "Q", "output": "A"}]},
        ["Be brief.", "Q", "A"],
        set(),
    ),
    (
        "ShareGPT from several models",
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "chatgpt", "value": "A"}]},
        ["Q", "A"],
        set(),
    ),
    (
        "OpenAI, with a developer's instruction",
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
            ]
        },
        ["Be brief.", "Q", "A"],
        set(),
    ),
    (
        "KTO, a good answer",
        {"prompt": "Q", "completion": "A", "label": True},
        ["Q", "A"],
        {"label"},
    ),
    (
        "UltraFeedback, with the chosen answer as messages",
        {
            "messages": [
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
            ],
            "chosen": "A",
            "rejected": "B",
        },
        ["Q", "A"],
        {"chosen", "rejected"},
    ),
    (
        "Pygmalion, with ShareGPT's words",
        {"conversations": [{"role": "human", "value": "Q"}, {"role": "bot", "value": "A"}]},
        ["Q", "A"],
        set(),
    ),
    (
        "ShareGPT with OpenAI's words",
        {"conversations": [{"from": "user", "content": "Q"}, {"from": "gpt", "content": "A"}]},
        ["Q", "A"],
        set(),
    ),
    (
        "Cohere",
        {
            "messages": [
                {"role": "System", "content": "Be brief."},
                {"role": "User", "content": "Q"},
                {"role": "Chatbot", "content": "A"},
            ]
        },
        ["Be brief.", "Q", "A"],
        set(),
    ),
    (
        "OpenAI's parts of responses",
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
            ]
        },
        ["Q", "A"],
        set(),
    ),
    (
        "parts without a type",
        {
            "messages": [
                {"role": "user", "content": [{"text": "Q"}]},
                {"role": "assistant", "content": [{"text": "A"}, {"text": "B"}]},
            ]
        },
        ["Q", "AB"],
        set(),
    ),
    (
        "a class beside a question",
        {"prompt": "Q", "completion": "A", "label": 0},
        ["Q", "A"],
        {"label"},
    ),
]
# name, a record, a word of what is wrong, and one of the fix
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "SQuAD",
        {"context": "C", "question": "Q", "answers": {"text": ["A"], "answer_start": [0]}},
        "has several answers in 'answers'",
        "jq -c '.answer = .answers.text[0]'",
    ),
    (
        "several answers",
        {"question": "Q", "answers": ["A", "B"]},
        "has several answers in 'answers'",
        "jq -c '.answer = .answers[0]'",
    ),
    (
        "MOSS",
        {"conversation_id": 1, "meta_instruction": "MOSS is ...", "chat": {"turn_1": {}}},
        "is not a record of a known layout",
        "write chat as messages",
    ),
    (
        "records in an object with more",
        {"name": "my rows", "notes": "a text", "rows": [{"prompt": "Q", "completion": "A"}]},
        "is not a record of a known layout",
        "if rows has the records: jq -c '.rows[]' FILE.json > rows.jsonl",
    ),
    (
        "HC3",
        {"id": "1", "question": "Why, oh why?", "human_answers": ["a"], "source": "the web"},
        "is not a record of a known layout",
        "write human_answers as messages",
    ),
    (
        "MMLU",
        {"question": "Q", "choices": ["a", "b"], "answer": 1},
        "'answer' in line 1 of a.jsonl is not text",
        "",
    ),
    (
        "Alpaca with its text",
        {"instruction": "I", "input": "", "output": "O", "text": "I O"},
        "matches more than one layout",
        "--local_dataset.format=instruction",
    ),
    (
        "a text beside a question",
        {"text": "T", "question": "Q", "answer": "A"},
        "matches more than one layout",
        "--local_dataset.format=",
    ),
    (
        "two answers",
        {"problem": "Q", "solution": "because 2", "answer": "2"},
        "matches more than one layout",
        "--local_dataset.columns=prompt=problem,completion=",
    ),
    (
        "LIMA",
        {"conversations": ["Q", "A"], "source": "web"},
        "turn 1 of 'conversations' in line 1 of a.jsonl is not a turn",
        "jq -c '{messages: [.conversations | to_entries[]",
    ),
    (
        "UltraChat",
        {"id": "0", "data": ["Q", "A", "R", "B"]},
        "has texts without speakers in 'data'",
        "jq -c '{messages: [.data | to_entries[]",
    ),
    (
        "names that a shell would part, beside what describes the record",
        {
            "page id": "0123456789abcdef-0123456789abcdef",
            "source url": "https://example.org/a/long/path/to/it",
            "The question": "Why?",
            "$answer": "It is so.",
        },
        "is not a record of a known layout",
        "'--local_dataset.columns=prompt=The question,completion=$answer'",
    ),
    (
        "code of repositories",
        {"repo_name": "a/b", "path": "x.py", "content": "def f():\n    return 1\n"},
        "is not a record of a known layout",
        "columns=text=content",
    ),
    (
        "a name with a comma",
        {"What, then": "Why?", "So": "It is so."},
        "is not a record of a known layout",
        "without commas",
    ),
    (
        "turns whose words have another name",
        {"messages": [{"role": "user", "text": "Q"}, {"role": "assistant", "text": "A"}]},
        "turn 1 of 'messages' in line 1 of a.jsonl has no content",
        "role and content",
    ),
    (
        "an image",
        {"messages": [{"role": "user", "content": [{"type": "image", "text": "Q"}]}]},
        "has content that is not text",
        "remove",
    ),
    (
        "Axolotl's marks of parts",
        {
            "messages": [
                {"role": "user", "content": "Q"},
                {
                    "role": "assistant",
                    "content": "A",
                    "train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}],
                },
            ]
        },
        "turn 2 of 'messages' in line 1 of a.jsonl has train_detail",
        "train: false",
    ),
    (
        "turns as Python prints them",
        {"messages": "[{'role': 'user', 'content': 'Q'}]"},
        "is text, not a list of turns in JSON",
        "json.dumps",
    ),
    (
        "columns of turns",
        {"messages": {"role": ["user", "assistant"], "content": ["Q", "A"]}},
        "is not a list of turns",
        "role and content",
    ),
    (
        "xLAM",
        {"id": 1, "query": "Q", "answers": '[{"name": "f", "arguments": {}}]', "tools": "[]"},
        "has calls of tools in 'answers'",
        "tool_calls: (.answers|fromjson)}]",
    ),
    (
        "Axolotl's segments",
        {"segments": [{"label": False, "text": "Q"}, {"label": True, "text": "A"}]},
        "is a text in 'segments'",
        "completion: .segments[-1].text}' FILE.jsonl",
    ),
    (
        "Glaive",
        {"system": "SYSTEM: You call functions.", "chat": "USER: Q ASSISTANT: A"},
        "is not a record of a known layout",
        "columns=text=chat",
    ),
    (
        "HH-RLHF",
        {"chosen": "H: Q A: A", "rejected": "H: Q A: B"},
        "is a preference",
        "columns=text=chosen",
    ),
    (
        "TRL's preferences",
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        "is a preference",
        "--local_dataset.columns=prompt=prompt,completion=chosen",
    ),
    (
        "OpenAI's preferences",
        {
            "input": {"messages": [{"role": "user", "content": "Q"}]},
            "preferred_output": [{"role": "assistant", "content": "A"}],
            "non_preferred_output": [{"role": "assistant", "content": "B"}],
        },
        "is a preference",
        "jq -c '{messages: (.input.messages + .preferred_output)}' FILE.jsonl",
    ),
    (
        "LLaMA-Factory's preferences",
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        "is a preference",
        "jq -c '{messages: (.conversations + [.chosen])}' FILE.jsonl",
    ),
    (
        "KTO",
        {"prompt": "Q", "completion": "B", "label": False},
        "has an answer that is marked as bad: 'label' is False",
        "rename the column",
    ),
    (
        "KTO in a table",
        {"Prompt": "Q", "Completion": "B", "Label": "false"},
        "has an answer that is marked as bad: 'Label' is false",
        "rename the column",
    ),
    (
        "LLaMA-Factory's KTO",
        {
            "messages": [
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "B"},
            ],
            "kto_tag": False,
        },
        "has an answer that is marked as bad: 'kto_tag' is False",
        "rename the column",
    ),
]


def turns(record: dict[str, Any]) -> tuple[list[str], set[str]]:
    place = ("line 1 of a.jsonl", record)
    formatter = RowFormatter(find_layout(place, "auto", {}), "chatml", "assistant")
    conversation = formatter.conversation(place)
    assert conversation is not None
    roles = [turn["role"] for turn in conversation.turns]
    expected = ["user", "assistant"] * len(roles)
    assert roles == (["system", *expected] if roles[0] == "system" else expected)[: len(roles)]
    named = {note.removeprefix("column ").strip("'") for note in formatter.unused(record)}
    return [turn["content"] for turn in conversation.turns], named


@pytest.mark.parametrize(
    ("record", "said", "named"), [case[1:] for case in READ], ids=[case[0] for case in READ]
)
def test_public_rows_are_read(record: dict[str, Any], said: list[str], named: set[str]) -> None:
    assert turns(record) == (said, named)
    assert turns(json.loads(json.dumps(record))) == (said, named)


@pytest.mark.parametrize(
    ("record", "what", "fix"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_others_are_refused_in_words(record: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        turns(record)
    (problem,) = error.value.problems
    assert what in problem.what
    assert fix in problem.fix


def test_a_call_is_a_call_however_its_speaker_is_spelled() -> None:
    said = [{"from": " Human ", "value": "Q"}]
    said += [{"from": "Function_Call", "value": '{"name": "f", "arguments": {}}'}]
    conversation = read_conversation(said, "it")
    assert conversation is not None
    assert conversation.turns[1]["tool_calls"][0]["function"]["name"] == "f"


def test_a_single_pair_in_a_conversation_is_no_turn_of_unknown_fields() -> None:
    record = {"conversations": [{"human": "Q", "assistant": "A", "score": 5}]}
    with pytest.raises(UsageError, match="has no speaker"):
        turns(record)
