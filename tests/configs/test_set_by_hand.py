"""Attributes that scripts set on configurations, and that are no fields or have no effect."""

from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.configs.set_by_hand import check_classes, refuse_unused
from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight.all_problems import preflight
from llama_recipes_local.preflight.flags import configurations
from llama_recipes_local.training.loop import train
from llama_recipes_local.utils.dataset_utils import get_preprocessed_dataset


def test_no_configuration_has_attributes_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_classes(configurations().values()) == []
    for cls in configurations().values():
        refuse_unused(cls())
        refuse_unused(cls)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "field"),
    [("batch_size", "batch_size_training"), ("learning_rate", "lr"), ("num_epoch", "num_epochs")],
)
def test_a_misspelt_field_is_refused(name: str, field: str) -> None:
    config = configs.train_config(lr=1.0)
    setattr(config, name, 4)
    with pytest.raises(UsageError) as refused:
        refuse_unused(config)
    (problem,) = refused.value.problems
    assert problem.what == f"train_config.{name} = 4 has no effect"
    assert problem.fix == f"set train_config.{field}, and delete {name}"


def test_training_and_data_look_at_their_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configs.train_config()
    config.batchsize_training = 4  # type: ignore[attr-defined]
    unused: Any = None
    with pytest.raises(UsageError, match="batchsize_training = 4 has no effect"):
        train(unused, unused, unused, unused, unused, unused, 1, config)
    monkeypatch.setattr(configs.samsum_dataset, "train_spilt", "train", raising=False)
    with pytest.raises(UsageError, match="train_spilt = 'train' has no effect"):
        get_preprocessed_dataset(unused, configs.samsum_dataset)


def test_a_note_of_the_scripts_own_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    config = configs.train_config()
    config.trust_remote_code = True  # type: ignore[attr-defined]
    refuse_unused(config)
    refuse_unused(config)
    said = "--> train_config.trust_remote_code = True has no effect"
    assert capsys.readouterr().out.count(said) == 1


def test_a_field_set_on_the_class_reaches_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs.train_config, "lr", 5.0)
    monkeypatch.setattr(configs.train_config, "report_to", ["wandb"], raising=False)
    monkeypatch.setattr(configs.fsdp_config, "sharding_strategy", "NO_SHARD")
    config = configs.train_config()
    assert config.lr != 5.0  # as of any dataclass
    with pytest.raises(UsageError) as refused:
        refuse_unused(config)
    fixes = [problem.fix for problem in refused.value.problems]
    assert fixes == ["set lr on the object", "set report_to on the object"]
    config.lr, config.report_to = 5.0, ["wandb"]
    refuse_unused(config)
    with pytest.raises(UsageError) as refused:
        preflight((), {"lr": 1e-4})
    said = str(refused.value)
    assert "give the run --train_config.lr 5.0" in said
    assert "give the run --fsdp_config.sharding_strategy NO_SHARD" in said
