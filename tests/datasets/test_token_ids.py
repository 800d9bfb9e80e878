"""Ids of every layout are those of each tokenizer's reference, and generation begins with them.

References are not this project's: SentencePiece reads its model, ``tokenizers`` a tokenizer.json,
and a chat's text is Meta's: each exchange begun, ended and encoded by itself.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from llama_recipes_local import configs
from llama_recipes_local.answers.prompt_texts import Prompt
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets import alpaca, grammar, guanaco, long_texts, samsum
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.datasets.layouts import Layout
from llama_recipes_local.datasets.prompt_template import (
    PROMPT_TEMPLATE_FILE,
    read_prompt_template,
    save_prompt_template,
)
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.token_ids import begun, text_ids
from llama_recipes_local.models import AutoTokenizer

WORDS = """Below is an instruction that describes a task. Write a response that completes it.
Correct this to standard English: she go to school yesterday. Corrected: She went to school.
### Human: Hi, who are you? ### Assistant: I am a model. [INST] Once upon a time [/INST] Yes.
Summarize this dialog: A: I baked cookies. B: Sure! Summary: Amanda baked cookies for Jerry.
"""
TEXT = "Once upon a time"
# Llama 3.1's and SmolLM2's special tokens, in words of this test's own
LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role "
    "+ '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SMOL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPLIT = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")


@dataclass(frozen=True)
class Family:
    """A tokenizer, its reference for a text without begin token, and what its texts begin with."""

    folder: Path
    reference: Callable[[str], list[int]]
    begin: list[int]
    special: dict[str, int]

    def ids(self, *parts: str) -> list[int]:
        """Special tokens by name, and the reference's ids of what is between them."""
        found: list[int] = []
        for part in parts:
            found += [self.special[part]] if part in self.special else self.reference(part)
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model with Llama 2's settings."""
    prefix = tmp_path_factory.mktemp("sentencepiece") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.splitlines() * 20),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def llama2_folder(folder: Path, model: Path, **config: Any) -> Path:
    folder.mkdir()
    shutil.copy(model, folder / "tokenizer.model")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write(folder, {"tokenizer_class": "LlamaTokenizer", **names, **config})
    return folder


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def add_tokenizer_json(folder: Path) -> None:
    """Write the file as Llama 2's is: a normaliser puts the space, whatever ``legacy`` says."""
    backend = json.loads(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
    mark = "\N{LOWER ONE EIGHTH BLOCK}"
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": mark}
    prepend = {"type": "Prepend", "prepend": mark}
    backend["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    backend["pre_tokenizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(backend))


def llama2(folder: Path, model: Path) -> Family:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return Family(folder, pieces.encode, [1], {"<s>": 1, "</s>": 2})


def byte_level(
    folder: Path, special: Sequence[str], begins: bool, config: dict[str, str]
) -> Family:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(SPLIT, "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    backend.train_from_iterator(WORDS.splitlines(keepends=True) * 20, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    ids = {token: backend.token_to_id(token) for token in special}
    if begins:
        first = (special[0], ids[special[0]])
        backend.post_processor = TemplateProcessing(f"{special[0]} $A", special_tokens=[first])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    write(folder, {"tokenizer_class": "PreTrainedTokenizerFast", **config})
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = reader.encode("").ids
    return Family(
        folder, lambda text: reader.encode(text, add_special_tokens=False).ids, begin, ids
    )


@pytest.fixture(scope="module")
def families(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    root = tmp_path_factory.mktemp("tokenizers")
    plain = llama2_folder(root / "model", model, add_bos_token=True, legacy=False)
    silent = llama2_folder(root / "silent", model)
    legacy = llama2_folder(root / "legacy", model, add_bos_token=True, legacy=True)
    both = llama2_folder(root / "both", model, add_bos_token=True, legacy=False)
    add_tokenizer_json(both)
    names = {"bos_token": LLAMA3[0], "eos_token": LLAMA3[1], "chat_template": HEADERS}
    smol = {"bos_token": SMOL[1], "eos_token": SMOL[2], "chat_template": CHATML}
    return {
        "Llama 2, tokenizer.model": llama2(plain, model),
        "Llama 2, no add_bos_token": llama2(silent, model),
        "Llama 2, legacy": llama2(legacy, model),
        "Llama 2, tokenizer.json": llama2(both, model),
        "Llama 3": byte_level(root / "llama3", LLAMA3, True, names),
        "SmolLM2": byte_level(root / "smol", SMOL, False, smol),
    }


FAMILIES = (
    "Llama 2, tokenizer.model",
    "Llama 2, no add_bos_token",
    "Llama 2, legacy",
    "Llama 2, tokenizer.json",
    "Llama 3",
    "SmolLM2",
)
PROMPTED = Layout("prompt", (("prompt", "prompt"), ("completion", "completion")))
COLUMNS = ("instruction", "input", "output")
INSTRUCTED = Layout("instruction", tuple((name, name) for name in COLUMNS))
MESSAGES = Layout("messages", (("messages", "messages"),))
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{}\n\n### Response:"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:"
)


def turns(*said: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]


def alpaca_formatter(folder: Path) -> Any:
    (folder / "alpaca_data.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3))
    return alpaca.split(configs.alpaca_dataset(data_path=str(folder)), "train").formatter


@dataclass(frozen=True)
class Row:
    """A layout's record, and its text: what is asked, what is answered.

    Attributes:
        formatter: the layout's.
        record: the record.
        asked: the prompt's text, without begin token.
        answered: the answer's text; empty for a text that is trained whole.
        apart: whether the answer is encoded as a text of its own.
        upstream: whether there is a begin token whatever the tokenizer says, as upstream writes it.
        typed: what a user would ask generation; None if its prompt has another form.
    """

    formatter: Any
    record: dict[str, Any]
    asked: str
    answered: str = "Yes."
    apart: bool = False
    upstream: bool = False
    typed: str | None = TEXT


SAID = {"instruction": TEXT, "output": "Yes."}
MORE = SAID | {"input": "Hi, who"}
ROWS = {
    "grammar": Row(
        grammar.FORMATTER,
        {"input": TEXT, "target": "Yes."},
        f"Correct this to standard English: {TEXT}\n---\nCorrected: ",
        apart=True,
        upstream=True,
    ),
    "samsum": Row(
        samsum.FORMATTER,
        {"dialogue": TEXT, "summary": "Yes."},
        f"Summarize this dialog:\n{TEXT}\n---\nSummary:\n",
        apart=True,
        upstream=True,
    ),
    "alpaca": Row(alpaca_formatter, SAID, ALPACA.format(TEXT)),
    "alpaca with input": Row(
        alpaca_formatter, MORE, ALPACA_WITH_INPUT.format(TEXT, "Hi, who"), typed=None
    ),
    "guanaco": Row(
        guanaco.TurnFormatter(),
        {"text": f"### Human: {TEXT}### Assistant: Yes."},
        f"### Human: {TEXT}### Assistant:",
        " Yes.",
    ),
    "text": Row(
        RowFormatter(Layout("text", (("text", "text"),)), "none", "assistant"),
        {"text": TEXT},
        "",
        TEXT,
        typed=None,
    ),
    "text that begins with spaces": Row(
        RowFormatter(Layout("text", (("text", "text"),)), "none", "assistant"),
        {"text": "  " + TEXT},
        "",
        "  " + TEXT,
        typed=None,
    ),
    "prompt": Row(
        RowFormatter(PROMPTED, "none", "assistant"),
        {"prompt": TEXT, "completion": "Yes."},
        TEXT,
        " Yes.",  # a prompt and a completion are not one word
        apart=True,
    ),
    "prompt that begins with a space": Row(
        RowFormatter(PROMPTED, "none", "assistant"),
        {"prompt": " " + TEXT, "completion": " Yes."},
        " " + TEXT,
        " Yes.",
        apart=True,
        typed=" " + TEXT,
    ),
    "prompt in alpaca": Row(
        RowFormatter(PROMPTED, "alpaca", "assistant"),
        {"prompt": TEXT, "completion": "Yes."},
        ALPACA.format(TEXT),
        " Yes.",
    ),
    "instruction": Row(
        RowFormatter(INSTRUCTED, "none", "assistant"), SAID, f"{TEXT}\n", apart=True
    ),
    "instruction with input": Row(
        RowFormatter(INSTRUCTED, "none", "assistant"),
        MORE,
        f"{TEXT}\nHi, who\n",
        apart=True,
        typed=None,
    ),
    "instruction in alpaca": Row(
        RowFormatter(INSTRUCTED, "alpaca", "assistant"), SAID, ALPACA.format(TEXT), " Yes."
    ),
    "instruction with input in alpaca": Row(
        RowFormatter(INSTRUCTED, "alpaca", "assistant"),
        MORE,
        ALPACA_WITH_INPUT.format(TEXT, "Hi, who"),
        " Yes.",
        typed=None,
    ),
    "messages in guanaco": Row(
        RowFormatter(MESSAGES, "guanaco", "assistant"),
        {"messages": turns(TEXT, "Yes.")},
        f"### Human: {TEXT}### Assistant:",
        " Yes.",
    ),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_the_references_and_generation_begins_with_them(
    family: str, name: str, families: dict[str, Family], tmp_path: Path
) -> None:
    known, row = families[family], ROWS[name]
    tokenizer = AutoTokenizer.from_pretrained(known.folder)
    formatter = row.formatter(tmp_path) if row.formatter is alpaca_formatter else row.formatter
    begin = [tokenizer.bos_token_id] if row.upstream else known.begin
    asked = begin + known.reference(row.asked)
    answered = known.reference(row.answered)
    if not row.apart:
        both = begin + known.reference(row.asked + row.answered)
        assert both[: len(asked)] == asked
        answered = both[len(asked) :]
    (sample,) = encode(tokenizer, [formatter(("it", row.record), tokenizer)])
    expected = [*asked, *answered, tokenizer.eos_token_id]
    assert sample["input_ids"] == expected
    hidden = max(len(asked), 1)  # nothing predicts a text's first token
    assert sample["labels"] == [IGNORE_INDEX] * hidden + expected[hidden:]
    if row.typed is not None:
        save_prompt_template(formatter.prompt_template(tokenizer), tmp_path)
        template = read_prompt_template(tmp_path / PROMPT_TEMPLATE_FILE)
        text = Prompt("it", row.typed).to_text(template, tokenizer)
        assert text_ids(tokenizer, [text]) == [asked]


CHAT = ("Hi", "Yes.", TEXT, "I am a model.")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("Llama 2")])
def test_a_chat_of_llama_2_is_metas(family: str, families: dict[str, Family]) -> None:
    """Each exchange is a text of its own: begun, the instruction in brackets, ended."""
    known = families[family]
    tokenizer = AutoTokenizer.from_pretrained(known.folder)
    formatter = RowFormatter(MESSAGES, "llama2", "assistant")
    (sample,) = encode(tokenizer, [formatter(("it", {"messages": turns(*CHAT)}), tokenizer)])
    first, second = f"[INST] {CHAT[0]} [/INST]", f"[INST] {CHAT[2]} [/INST]"
    whole = known.ids("<s>", f"{first} {CHAT[1]} ", "</s>", "<s>", f"{second} {CHAT[3]} ", "</s>")
    assert sample["input_ids"] == whole
    asked = known.ids("<s>", f"{first} {CHAT[1]} ", "</s>", "<s>", second)
    text = formatter.prompt_template(tokenizer).of_turns(turns(*CHAT[:3]), tokenizer)
    assert text_ids(tokenizer, [text]) == [asked]
    assert sample["labels"][: len(asked)].count(IGNORE_INDEX) == len(asked) - len(
        known.ids(f"{first} {CHAT[1]} ", "</s>")
    ) + len(known.ids(first))
    assert sample["labels"][len(asked) :] == whole[len(asked) :]


@pytest.mark.parametrize("template", ["tokenizer", "llama3", "chatml"])
def test_a_chat_of_special_tokens(template: str, families: dict[str, Family]) -> None:
    family = families["SmolLM2" if template == "chatml" else "Llama 3"]
    tokenizer = AutoTokenizer.from_pretrained(family.folder)
    formatter = RowFormatter(MESSAGES, template, "assistant")
    (sample,) = encode(tokenizer, [formatter(("it", {"messages": turns(*CHAT)}), tokenizer)])
    expected = [] if template == "chatml" else family.ids("<|begin_of_text|>")
    for turn in turns(*CHAT):
        role, said = turn["role"], turn["content"]
        if template == "chatml":
            expected += family.ids("<|im_start|>", f"{role}\n{said}", "<|im_end|>", "\n")
        else:
            header = family.ids("<|start_header_id|>", role, "<|end_header_id|>")
            expected += header + family.ids(f"\n\n{said}", "<|eot_id|>")
    assert sample["input_ids"] == expected
    text = formatter.prompt_template(tokenizer).of_turns(turns(*CHAT[:3]), tokenizer)
    (asked,) = text_ids(tokenizer, [text])
    assert expected[: len(asked)] == asked
    assert [label for label in sample["labels"][len(asked) :] if label != IGNORE_INDEX] == [
        *family.ids(CHAT[3]),
        tokenizer.eos_token_id,
    ]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "SmolLM2"])
def test_there_is_one_begin_token(family: str, families: dict[str, Family]) -> None:
    """Also where the text or the template brings one of its own, or both do."""
    tokenizer = AutoTokenizer.from_pretrained(families[family].folder)
    bos, begin = tokenizer.bos_token, tokenizer.bos_token_id
    own = bos + "Hi"
    examples = [
        Pair(own, "Yes"),
        Pair(own, "Yes" + tokenizer.eos_token, begins=True),
        Continuation(own, "Yes" + tokenizer.eos_token),
        Marked(own),
        Marked(own, ((len(bos), len(own)),)),
        Marked(bos + own, ((2 * len(bos), 2 * len(bos) + 2),), complete=True),
    ]
    for example, sample in zip(examples, encode(tokenizer, examples), strict=True):
        ids = sample["input_ids"]
        assert ids[0] == begin and ids.count(begin) == 1, example
        assert ids.count(tokenizer.eos_token_id) == (0 if example == examples[-1] else 1), example
        assert begin not in sample["labels"]
    assert text_ids(tokenizer, [begun(own, tokenizer)]) == text_ids(tokenizer, [own])


def test_a_tokenizer_json_decides_what_follows_other_special_tokens(
    families: dict[str, Family],
) -> None:
    """Its normaliser puts a space after each, which transformers' class forgets."""
    folder = families["Llama 2, tokenizer.json"].folder
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("Hi</s>Yes", "Hi</s>\nYes", "</s> Yes", "<s>  Hi</s><s>Yes"):
        expected = reader.encode(text, add_special_tokens=False).ids
        assert text_ids(tokenizer, [text]) == [expected], text


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_begins_with_line_ends_is_trained_whole(
    family: str, families: dict[str, Family]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families[family].folder)
    tokenizer.add_tokens([AddedToken(":\n\n", normalized=False)])
    asked, answer = ALPACA.format(TEXT), "\n\nYes."
    spans = ((len(asked), len(asked + answer)),)
    for example in (Continuation(asked, answer), Marked(asked + answer, spans)):
        (sample,) = encode(tokenizer, [example])
        (prompt,) = text_ids(tokenizer, [begun(asked, tokenizer)])
        assert sample["input_ids"][: len(prompt)] == prompt
        assert sample["labels"][: len(prompt)] == [IGNORE_INDEX] * len(prompt)
        labels = sample["labels"][len(prompt) :]
        assert tokenizer.decode(labels) == answer + tokenizer.eos_token


def test_pieces_are_merged_in_the_order_of_their_scores(model: Path, tmp_path: Path) -> None:
    """As Llama 2's runs of spaces, which have the lowest score but not the last ids."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    for piece in [each for each in proto.pieces if len(each.piece) == 2][:12]:
        piece.score = -1e9
    (tmp_path / "other.model").write_bytes(proto.SerializeToString())
    folder = llama2_folder(tmp_path / "llama", tmp_path / "other.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "other.model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in WORDS.splitlines():
        assert text_ids(tokenizer, [text]) == [pieces.encode(text)]
    assert text_ids(AutoTokenizer.from_pretrained(folder), [WORDS]) != [
        transformers.AutoTokenizer.from_pretrained(folder)(WORDS)["input_ids"]
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_text_in_pieces_has_the_references_ids(
    family: str, families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_recipes_local.datasets.long_texts.PIECE", 20)
    monkeypatch.setattr("llama_recipes_local.datasets.token_ids.PIECE", 20)
    known = families[family]
    tokenizer = AutoTokenizer.from_pretrained(known.folder)
    line = "A  dog's 1234 words, it\u2019s e\u0301t\u00e9 in \u4e2d\u6587 and so \n\n on.\tNo more "
    text = line * 6 + "of it"
    assert len(long_texts.pieces(tokenizer, text)) > 10
    begin = tokenizer.bos_token if known.begin else ""
    whole = known.begin + known.reference(text) + [tokenizer.eos_token_id]
    (sample,) = encode(tokenizer, [Marked(text)])
    assert sample["input_ids"] == whole
    assert text_ids(tokenizer, [f"{begin}{text}{tokenizer.eos_token}", "Hi"])[0] == whole
    # special tokens within: not cut
    within = f"{text}{tokenizer.eos_token}{text}"
    assert long_texts.pieces(tokenizer, within) == [within]


def test_a_text_is_not_cut_where_a_token_goes_across(
    families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_recipes_local.datasets.long_texts.PIECE", 20)
    tokenizer = AutoTokenizer.from_pretrained(families["SmolLM2"].folder)
    tokenizer.add_tokens(["in the"])
    text = "It is in the end what it was in the beginning. " * 3
    assert long_texts.pieces(tokenizer, text) == [text]


def test_pieces_whose_configuration_does_not_say_legacy_are_transformers_5s(
    families: dict[str, Family],
) -> None:
    """transformers 4 put a space after a special token there, as it still does for legacy."""
    found = {}
    for name in ("Llama 2, no add_bos_token", "Llama 2, legacy"):
        folder = families[name].folder
        plain = transformers.AutoTokenizer.from_pretrained(folder)
        found[name] = plain("he</s>she", add_special_tokens=False)["input_ids"]
        assert text_ids(AutoTokenizer.from_pretrained(folder), ["he</s>she"]) == [found[name]]
    assert found["Llama 2, no add_bos_token"] != found["Llama 2, legacy"]
