"""Each value of a GGUF file is checked before it is used."""

from typing import Any

import pytest

from llama_recipes_local.errors import UsageError
from llama_recipes_local.gguf_files.metadata import Metadata

VALUES: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 8,
    "llama.vocab_size": 6,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<e>", "<b>", "a", "b", "ab", "aba"],
    "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b", "ab a"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.chat_template": "{{ messages }}",
}


def read(values: dict[str, Any]) -> None:
    metadata = Metadata(values)
    metadata.shape()
    metadata.vocabulary()


def test_values_that_are_right_are_read() -> None:
    metadata = Metadata(VALUES)
    shape, vocabulary = metadata.shape(), metadata.vocabulary()
    assert (shape.layers, shape.head, shape.key_value_heads) == (2, 8, 2)
    assert shape.rms_norm_eps == 1e-5  # as it was before 32 bits rounded it
    assert list(vocabulary.kinds) == [3, 3, 1, 1, 1, 1]
    assert vocabulary.merges == [("a", "b"), ("ab", "a")]
    assert (vocabulary.begin, vocabulary.end) == (1, 0)
    assert (vocabulary.add_begin, vocabulary.space_prefix) == (False, False)


OPTIONAL = {
    "llama.attention.head_count_kv",
    "llama.rope.freq_base",
    "llama.rope.dimension_count",
    "llama.vocab_size",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
}
"""Values without which llama.cpp takes its defaults."""


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_value_that_may_be_missing_has_its_default(key: str) -> None:
    read({name: value for name, value in VALUES.items() if name != key})


@pytest.mark.parametrize("key", VALUES.keys() - OPTIONAL)
def test_a_value_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(UsageError, match=key):
        read({name: value for name, value in VALUES.items() if name != key})


@pytest.mark.parametrize("key", VALUES)
def test_a_value_of_another_type_is_named(key: str) -> None:
    other = str(VALUES[key]).encode()
    with pytest.raises(UsageError, match=key):
        read(VALUES | {key: other})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "qwen2"),
        ("llama.block_count", 0),
        ("llama.block_count", 2**40),
        ("llama.block_count", True),
        ("llama.context_length", -1),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", 0.0),
        ("llama.rope.freq_base", float("inf")),
        ("llama.rope.dimension_count", 4),
        ("llama.rope.scaling.factor", 2.0),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.rope.scaling.original_context_length", 64),
        ("llama.attention.key_length", 16),
        ("llama.expert_count", 8),
        ("tokenizer.ggml.model", "bert"),
        ("tokenizer.ggml.add_sep_token", True),
        ("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.tokens", ["<e>", "<b>", "a", "b", "ab", "ab"]),
        ("tokenizer.ggml.tokens", ["<e>", "<b>", "a", "b", "ab", ""]),
        ("tokenizer.ggml.tokens", ["<e>", "<b>", "a", "b", "ab"]),
        ("tokenizer.ggml.token_type", [3, 3, 1, 1, 1, 6]),
        ("tokenizer.ggml.token_type", [3, 3, 1, 1, 1]),
        ("tokenizer.ggml.merges", ["a b", "b a"]),
        ("tokenizer.ggml.merges", ["ab"]),
        ("tokenizer.ggml.merges", ["a b a"]),
        ("tokenizer.ggml.eos_token_id", 6),
        ("tokenizer.ggml.eos_token_id", -1),
        ("tokenizer.ggml.bos_token_id", 2),
    ],
)
def test_a_value_that_is_wrong_is_named(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        read(VALUES | {key: value})


@pytest.mark.parametrize("name", ["", "..", "../tool_use", "a/b", "a.jinja", "x" * 65, "default"])
def test_a_template_of_a_name_that_no_file_should_have_is_refused(name: str) -> None:
    key = f"tokenizer.chat_template.{name}"
    with pytest.raises(UsageError, match="a template's name has"):
        read(VALUES | {key: "{{ tools }}"})
    with pytest.raises(UsageError, match="it must be of type str"):
        read(VALUES | {"tokenizer.chat_template.rag": 3})
