"""What upstream's ``main`` resolves from the flags equals the run's, except for one field."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import finetuning
from llama_recipes_local._upstream import load
from llama_recipes_local.configs.quantization import INT8
from llama_recipes_local.run import Run, active_run


class StoppedError(Exception):
    """``main`` has got to where it is stopped."""


@dataclass
class Seen:
    """The active run, and the configurations of ``main`` by the names of their classes."""

    run: Run | None = None
    mains: dict[str, Any] = field(default_factory=dict)

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Return the fields that differ: what the run has, and what ``main`` has."""
        assert self.run is not None
        ours = {type(config).__name__: asdict(config) for config in self.run.configurations()}
        return {
            f"{name}.{field}": (ours[name][field], value)
            for name, config in self.mains.items()
            for field, value in asdict(config).items()
            if value != ours[name][field]
        }


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Runs of ``main`` end where training, or with FSDP the process group, would begin."""
    found, upstream = Seen(), load("finetuning")

    def recorded(name: str, pick: Any) -> None:
        original = getattr(upstream, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            for config in pick(args, returned):
                found.mains[type(config).__name__] = config
            return returned

        monkeypatch.setattr(upstream, name, call)

    def stop(*args: Any) -> None:
        found.run = active_run()
        raise StoppedError

    recorded("update_config", lambda args, _: args[0] if isinstance(args[0], tuple) else args[:1])
    recorded("generate_dataset_config", lambda _, returned: [returned])
    monkeypatch.setattr(upstream, "train", stop)
    monkeypatch.setattr(upstream, "setup", stop)
    return found


def flags_of(model: Path, data: Path, output: Path, **flags: Any) -> dict[str, Any]:
    plain = {
        "model_name": str(model),
        "dataset": "grammar_dataset",
        "data_root": str(data),
        "context_length": 128,
        "output_dir": str(output),
    }
    return plain | flags


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {
            "train_config.lr": "1e-3",
            "use_peft": True,
            "r": 4,
            "weight_decay": 1,
            "pure_bf16": True,
            "fsdp_config.optimizer": "anyprecision",
            "grammar_dataset.test_split": "datasets/grammar/grammar_validation.csv",
        },
        {"config": "qlora", "seed": 7, "quant_type": "fp4"},
    ],
)
def test_the_run_has_what_main_passes_on(
    flags: dict[str, Any], seen: Seen, tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        finetuning.main(**flags_of(tiny_model, grammar_data, tmp_path, **flags))
    assert {"train_config", "fsdp_config", "grammar_dataset"} <= seen.mains.keys()
    assert seen.differences() == {}


def test_8_bits_have_another_name_in_main_with_replicated_weights(
    seen: Seen,
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    flags = {"enable_fsdp": True, "sharding_strategy": "NO_SHARD", "use_peft": True}
    with pytest.raises(StoppedError):
        finetuning.main(
            **flags_of(tiny_model, grammar_data, tmp_path, quantization="8bit", **flags)
        )
    assert seen.differences() == {"train_config.quantization": ("8bit", INT8)}


def test_a_difference_would_be_found(
    seen: Seen, tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        finetuning.main(**flags_of(tiny_model, grammar_data, tmp_path))
    seen.mains["train_config"].lr = 1.0
    assert seen.differences() == {"train_config.lr": (1e-4, 1.0)}
