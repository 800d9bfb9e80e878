"""What ``finetuning.py --help`` says of every flag."""

import pytest

from llama_recipes_local.fields import descriptions, field_names
from llama_recipes_local.preflight.help import help_text, sections


@pytest.mark.parametrize("cls", sections())
def test_every_flag_is_told_of_and_described(cls: type) -> None:
    told = help_text()
    described = descriptions(cls)
    assert list(described) == field_names(cls)
    assert all(f"\n  --{flag}" in told for flag in described)


def test_a_field_has_its_default_and_its_own_words() -> None:
    told = help_text()
    assert "\n  --lr (0.0001)\n      Learning rate.\n" in told
    assert "\n  --sharding_strategy (FULL_SHARD)\n" in told
    assert "\n  --target_modules (q_proj,v_proj)\n" in told
    assert (
        "\n  --output_dir (outputs)\n      Folder that the adapter or model is saved in.\n" in told
    )
    assert "\n  --model_name\n      Folder of the model to fine-tune" in told
    assert "\n  --grammar_dataset.train_split (datasets/grammar/gtrain_10k.csv)\n" in told
    assert told.count("\n  --use_fp16 ") == 1  # of two configurations
    assert max(map(len, told.splitlines())) <= 100
