"""Whatever is changed in an exported file by hand is refused by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from llama_families import build
from safetensors.torch import load_file, save_file

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
from changed_files import MISSING, rewrite, values_of  # noqa: E402

from llama_recipes_local.certificates.certificate import certify  # noqa: E402
from llama_recipes_local.certificates.held_out import shipped_rows  # noqa: E402
from llama_recipes_local.certificates.layer_by_layer import Weights  # noqa: E402
from llama_recipes_local.commands.export.command import Export, _planned_model  # noqa: E402
from llama_recipes_local.errors import UsageError, refuse  # noqa: E402
from llama_recipes_local.export_formats import PlannedExport  # noqa: E402

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
BYTE_LEVEL, SENTENCEPIECE = "Llama 3.1", "Llama 2 Chat"


class Exported(NamedTuple):
    """An export, and its file."""

    planned: PlannedExport
    file: Path

    def read_again(self, *changes: Any) -> None:
        """Change the file, and compare it with the model.

        Raises:
            UsageError: if it is refused.
        """
        folder = self.file.parent / "changed"
        folder.mkdir(exist_ok=True)
        rewrite(self.file, changes[0], folder / self.file.name)
        read = self.planned.export.read_back(folder)
        assert read is not None
        rows = shipped_rows(self.planned.model, read.original.tokenizer)
        refuse(certify(folder, read, rows, ("outputs",)).problems())


def exported(family: str, kind: str, folder: Path) -> Exported:
    model = build(family, folder / "model")
    weights = load_file(model / "model.safetensors")
    for name, each in weights.items():
        if each.ndim == 1:  # norms are of ones, which can be exchanged
            weights[name] = 1 + torch.randn(each.shape).to(each.dtype) / 8
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    planned = _planned_model(Export(model=model, adapter=None, out=folder / "out"), f"gguf-{kind}")
    (folder / "file").mkdir()
    planned.export.write(folder / "file")
    return Exported(planned, next((folder / "file").glob("*.gguf")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    return {
        family: exported(family, "f16", tmp_path_factory.mktemp("family"))
        for family in (BYTE_LEVEL, SENTENCEPIECE)
    }


def other(value: Any) -> Any:
    """Return another value of the same type, close by."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value[:-2], value[-1], value[-2]] if value[-1] != value[-2] else [*value[:-1], 4]
    return value + 1 if isinstance(value, int) else value * 1.01 if value != str(value) else "gpt-2"


KEYS = (
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.rope.dimension_count",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.vocab_size",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.freq_base",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
)


@pytest.mark.parametrize("family", [BYTE_LEVEL, SENTENCEPIECE])
@pytest.mark.parametrize("key", KEYS)
def test_another_value_is_refused(key: str, family: str, files: dict[str, Exported]) -> None:
    values = values_of(files[family].file)
    if key not in values:
        pytest.skip(f"{family} has no {key}")
    for change in (other(values[key]), MISSING):
        with pytest.raises(UsageError):
            files[family].read_again({key: change})


def of_token(token: str, kind: int, exported: Exported) -> dict[str, Callable[..., Any]]:
    place = values_of(exported.file)["tokenizer.ggml.tokens"].index(token)
    return {"tokenizer.ggml.token_type": lambda kinds: [*kinds[:place], kind, *kinds[place + 1 :]]}


@pytest.mark.parametrize("kind", [USER_DEFINED, UNUSED, 2, 6])
@pytest.mark.parametrize(
    ("family", "token"),
    [
        (BYTE_LEVEL, "<|eot_id|>"),
        (BYTE_LEVEL, "<|python_tag|>"),
        (SENTENCEPIECE, "</s>"),
        (SENTENCEPIECE, "<0x41>"),
        (SENTENCEPIECE, "\u2581a"),
    ],
)
def test_another_type_of_a_token_is_refused(
    family: str, token: str, kind: int, files: dict[str, Exported]
) -> None:
    if (token, kind) == ("<0x41>", 6):
        kind = CONTROL  # it is of type 6
    with pytest.raises(UsageError, match="token"):
        files[family].read_again(of_token(token, kind, files[family]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.rope.scaling.type", "longrope"),
        ("llama.rope.scaling.original_context_length", 64),
        ("llama.expert_count", 2),
        ("llama.attention.scale", 0.5),
        ("tokenizer.ggml.padding_token_id", 3),
        ("tokenizer.ggml.remove_extra_whitespaces", True),
        ("tokenizer.chat_template.tool_use", "{{ messages }}"),
        ("general.sampling.temp", 0.1),
        ("split.count", 2),
    ],
)
def test_another_key_is_refused(key: str, value: Any, files: dict[str, Exported]) -> None:
    with pytest.raises(UsageError, match=key):
        files[SENTENCEPIECE].read_again({key: value})


def test_a_file_that_is_written_again_is_right(files: dict[str, Exported]) -> None:
    for each in files.values():
        each.read_again({})


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_0"])
def test_tensors_that_are_exchanged_are_named(kind: str, tmp_path: Path) -> None:
    made = exported(SENTENCEPIECE, kind, tmp_path)
    tensors = gguf.GGUFReader(made.file).tensors
    folder = tmp_path / "exchanged"
    folder.mkdir()
    pairs = [
        (a.name, b.name)
        for place, a in enumerate(tensors)
        for b in tensors[place + 1 :]
        if list(a.shape) == list(b.shape) and a.tensor_type == b.tensor_type
    ]
    assert ("token_embd.weight", "output.weight") in pairs or kind != "f32"
    for a, b in pairs[::5]:
        rewrite(made.file, {}, folder / made.file.name, {a: b, b: a})
        read = made.planned.export.read_back(folder)
        assert read is not None
        weights = Weights(read)
        for name in read.names:
            weights(name)
        assert len(weights.wrong) == 2, (a, b, weights.wrong)
