"""Published Llamas, tiny and random: ids, training, resuming, merging and generating of each.

References are SentencePiece and ``tokenizers`` for ids, and plain transformers, which loads the
saved folders with nothing added, for texts.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
import transformers
from generate_command import generate
from llama_families import FAMILIES, build, copy_without
from tokenizers import Tokenizer

from llama_recipes_local import cli
from llama_recipes_local.datasets.templates import DATE
from llama_recipes_local.datasets.token_ids import text_ids
from llama_recipes_local.finetuning import main
from llama_recipes_local.models import AutoTokenizer

pytestmark = pytest.mark.slow

TEXTS = (
    "She went to school yesterday.",
    " a space first",
    "  two",
    "从前有一座山 山上有一座庙。",
    "日本のé😀",
    "def add(a):\n    return a\n\n\t3 12500 x",
    "user\nHello",
    "",
)
PROMPTS = ("Who are you?", "She go to school.\n  Why?")
WORDS = ("one", "two", "three", "king", "apple", "toys", "school", "house")
ROWS = [
    {"prompt": f"Say {word}.", "completion": f"{word}, of course; {number} times."}
    for number, word in enumerate(WORDS)
]
BOTH_FILES = [name for name in FAMILIES if name in ("Llama 2 Chat", "Code Llama", "TinyLlama")]

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Returns a family's folder."""
    root = tmp_path_factory.mktemp("families")

    def of(name: str) -> Path:
        found = root / name.replace(" ", "-")
        return found if found.is_dir() else build(name, found)

    return of


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return path


def reference(folder: Path) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    """Return what encodes and decodes by SentencePiece itself, or by ``tokenizers`` alone."""
    if (folder / "tokenizer.model").is_file():
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        return pieces.encode, pieces.decode
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: whole.encode(text, add_special_tokens=False).ids, whole.decode


def check_ids(loaded: Path, known: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(loaded)
    encode, decode = reference(known)
    assert len(tokenizer) <= json.loads((known / "config.json").read_text("utf-8"))["vocab_size"]
    for text in TEXTS:
        ids = encode(text)
        assert text_ids(tokenizer, [text]) == [ids], text
        assert tokenizer.decode(ids) == decode(ids), text


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_texts_are_the_references(name: str, folder: Folder) -> None:
    check_ids(folder(name), folder(name))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("name", BOTH_FILES)
def test_one_of_two_tokenizer_files_is_enough(
    name: str, file: str, folder: Folder, tmp_path: Path
) -> None:
    check_ids(copy_without(folder(name), tmp_path / "model", file), folder(name))


def train(model: Path, rows: Path, out: Path, **flags: Any) -> None:
    main(
        model_name=str(model),
        dataset=str(rows),
        output_dir=str(out),
        context_length=256,
        batching_strategy="padding",
        batch_size_training=2,
        max_eval_step=1,
        num_workers_dataloader=0,
        lr=0.01,
        **flags,
    )


def plain_text(folder: Path, prompt: str) -> str:
    """Return the greedy completion of plain transformers, in the folder's chat template if any.

    Of a SentencePiece model, what is between special tokens is encoded by SentencePiece, because
    transformers' own tokenizer has no space mark after one, or has one where the model has none.
    """
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = (tokenizer.bos_token or "") + prompt
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        options = {"date_string": DATE, "add_generation_prompt": True}
        text = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    encode, _ = reference(folder)
    special = "|".join(map(re.escape, tokenizer.all_special_tokens))
    parts = [part for part in re.split(f"({special})", text) if part]
    known = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    ids = [each for part in parts for each in ([known[part]] if part in known else encode(part))]
    if not (folder / "tokenizer.model").is_file():
        # not transformers' own: 5.17 takes DeepSeek's for one of SentencePiece
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    found = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=16)[0].tolist()
    return str(tokenizer.decode(found[len(ids) :], skip_special_tokens=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_resumes_merges_and_generates(
    name: str, folder: Folder, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, straight, resumed = folder(name), tmp_path / "straight", tmp_path / "resumed"
    lora: dict[str, Any] = {"use_peft": True, "save_steps": 2, "max_train_step": 3}
    train(base, rows, straight, **lora)
    shutil.copytree(straight / "checkpoint-2", resumed / "checkpoint-2")
    train(base, rows, resumed, resume_from_checkpoint="auto", **lora)
    weights = [(each / "adapter_model.safetensors").read_bytes() for each in (straight, resumed)]
    assert weights[0] == weights[1]
    merged = tmp_path / "merged"
    assert cli.main(["merge", f"--adapter={resumed}", f"--out={merged}"]) == 0
    for prompt in PROMPTS:
        words = ("--max_new_tokens=16", f"--prompt={prompt}")
        text = generate(capsys, f"--model_name={merged}", *words)
        assert text.strip() == plain_text(merged, prompt).strip()
        # float32 sums in another order do not change which token is the likeliest here
        assert text == generate(capsys, f"--adapter={resumed}", *words)
    before = generate(capsys, f"--model_name={base}", *words)
    assert before != text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_whole_and_loads_in_plain_transformers(
    name: str, folder: Folder, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = folder(name)
    train(base, rows, tmp_path, max_train_step=2)
    text = generate(capsys, f"--model_name={tmp_path}", "--max_new_tokens=16", "--prompt=Hello")
    assert text.strip() == plain_text(tmp_path, "Hello").strip()
    for file in ("config.json", "generation_config.json"):
        saved, known = (json.loads((each / file).read_text()) for each in (tmp_path, base))
        ends = [each.get("eos_token_id") for each in (saved, known)]
        assert ends[0] == ends[1], file
    assert saved.get("temperature") == known.get("temperature")
