"""The stand-in's tokenizer behaves like Llama's and encodes any text."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings
from llama_recipes_local.datasets import grammar
from llama_recipes_local.records.any_format import records


@pytest.fixture(scope="module")
def tokenizer(stand_in: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(stand_in, local_files_only=True)


def test_it_is_fast_and_knows_its_special_tokens(
    tokenizer: PreTrainedTokenizerFast, settings: StandInSettings
) -> None:
    assert tokenizer.is_fast
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert special == ("<s>", "</s>", "<pad>")
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert len(set(ids)) == 3
    assert tokenizer.convert_tokens_to_ids(list(special)) == list(ids)
    assert len(tokenizer) == settings.vocabulary
    assert tokenizer.model_max_length == settings.positions


def test_encoding_adds_only_the_token_that_begins_a_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    plain = tokenizer.encode("She go to school.", add_special_tokens=False)
    assert tokenizer.encode("She go to school.") == [tokenizer.bos_token_id, *plain]
    written = tokenizer.encode("<s>She go to school.</s>", add_special_tokens=False)
    assert written == [tokenizer.bos_token_id, *plain, tokenizer.eos_token_id]


@pytest.mark.parametrize(
    "text",
    [
        "She go to school yesterday.",
        " two  spaces , and a stop .",
        "don't ... we're",
        "a\n---\nb\t1,234.56\n",
        "caf\u00e9 \u4f60\u597d \U0001f600",
    ],
)
def test_decoding_returns_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_decoding_returns_the_data(tokenizer: PreTrainedTokenizerFast, sentences: Path) -> None:
    texts = [text for _, row in records(sentences) for text in row.values()]
    assert len(texts) == 120
    decoded = [tokenizer.decode(tokenizer.encode(t), skip_special_tokens=True) for t in texts]
    assert decoded == texts


def test_it_was_trained_on_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.tokenize(grammar.PROMPT.format("x"))
    assert "Corrected" in tokens
