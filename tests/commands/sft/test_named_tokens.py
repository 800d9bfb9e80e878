"""``--eos_token`` and ``--pad_token`` name tokens that the model has rows for."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llama_recipes_local.commands.sft.sft_rules import check_tokens


class Options:
    eos_token: str | None = None
    pad_token: str | None = None

    def __init__(self, model: Path, **tokens: str) -> None:
        self.model_name_or_path = str(model)
        vars(self).update(tokens)


@pytest.mark.parametrize("flag", ["eos_token", "pad_token"])
def test_a_token_without_a_row_is_refused(flag: str, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), 1001)])
    given: Any = Options(tiny_model, **{flag: "<1000>"})
    (problem,) = check_tokens(given, tokenizer)
    assert problem.what == f"--{flag} <1000>"
    assert problem.why == "it is number 1,000, and the model has 1,000 rows (vocab_size)"
    for token in ("<pad>", "</s>"):
        has_a_row: Any = Options(tiny_model, **{flag: token})
        assert not check_tokens(has_a_row, tokenizer)
