"""What ``finetuning.py --help`` says about every flag."""

import pytest

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.fields import descriptions, field_names
from llama_recipes_local.preflight.help import help_text, sections
from llama_recipes_local.screen import COLUMNS


@pytest.mark.parametrize("cls", sections())
def test_every_flag_is_listed_and_described(cls: type) -> None:
    text = help_text()
    described = descriptions(cls)
    assert list(described) == field_names(cls)
    assert all(f"\n  --{flag}" in text for flag in described)


def test_a_field_has_its_default_and_its_docstring() -> None:
    text = help_text()
    assert "\n  --lr (0.0001)\n      Learning rate.\n" in text
    assert "\n  --sharding_strategy (FULL_SHARD)\n" in text
    assert "\n  --target_modules (q_proj,v_proj)\n" in text
    assert (
        "\n  --output_dir (outputs)\n      Folder that the adapter or model is saved in.\n" in text
    )
    assert "\n  --model_name\n      Folder of the model to fine-tune" in text
    assert "\n  --grammar_dataset.train_split (datasets/grammar/gtrain_10k.csv)\n" in text
    assert f"Adapter method for use_peft. One of {', '.join(METHODS)}.\n" in text
    assert text.count("\n  --use_fp16 ") == 1  # of two configurations
    assert max(map(len, text.splitlines())) <= COLUMNS
