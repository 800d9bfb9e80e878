"""The trainings that are compared: on one process, on two ranks, on four; each made once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shared_fixtures import one_thread  # noqa: F401 for all tests of this room
from torchrun import HELPERS, Launched, run_ranks

from llama_recipes_local.finetuning import main

SCRIPT = HELPERS / "sharded_runs.py"
Tensors = dict[str, torch.Tensor]

# the global batch of every run, in packed rows
GLOBAL_BATCH = 4
# 48 packed rows: in global batches of 22, the last one has 4, all of them on the first rank;
# so have the 60 rows that are padded, in global batches of 56
UNEVEN_BATCH = 22
UNEVEN_PADDED_BATCH = 56
PADDED = {"batching_strategy": "padding"}
NF4 = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": True}
# between the norms of the adapter's gradients, so that some steps are clipped
CLIPPING = {"gradient_clipping": True, "gradient_clipping_threshold": 0.35}


@dataclass
class Run:
    """What a fine-tuning left in its folder."""

    output: Path

    @property
    def adapter(self) -> Tensors:
        return load_file(self.output / "adapter_model.safetensors")

    @property
    def model(self) -> Tensors:
        (path,) = self.output.rglob("model.safetensors")
        return load_file(path)

    @property
    def steps(self) -> list[dict[str, Any]]:
        lines = (self.output / "metrics.jsonl").read_text("utf-8").splitlines()
        assert lines
        return [json.loads(line) for line in lines]

    @property
    def evaluations(self) -> list[float]:
        """The validation loss of each epoch."""
        path = min(self.output.glob("metrics_data_*.json"))
        losses = json.loads(path.read_text("utf-8"))["val_epoch_loss"]
        assert losses
        return losses


@dataclass
class Runs:
    """Runs of one launch by their names, and what each rank printed."""

    folder: Path
    launched: Launched

    def __getitem__(self, name: str) -> Run:
        return Run(self.folder / name)


@pytest.fixture(scope="session")
def lora(tiny_run: dict[str, Any]) -> dict[str, Any]:
    """The flags of five LoRA steps in float32, without the noise of dropout."""
    return {
        **tiny_run,
        "use_peft": True,
        "lora_dropout": 0.0,
        "lr": 1e-3,
        "context_length": 128,
        "num_epochs": 1,
        "max_train_step": 5,
        "run_validation": False,
        **CLIPPING,
    }


@pytest.fixture(scope="session")
def uneven(lora: dict[str, Any]) -> dict[str, Any]:
    """The flags of a full epoch, validated, whose rows do not fill the last global batch."""
    return lora | {
        "max_train_step": 0,
        "run_validation": True,
        "save_metrics": True,
        "eval_generation_rows": 3,
    }


@pytest.fixture(scope="session")
def full(lora: dict[str, Any]) -> dict[str, Any]:
    """The flags of five steps that train every weight."""
    flags = lora | {"use_peft": False, "checkpoint_type": "FULL_STATE_DICT"}
    del flags["lora_dropout"]
    return flags


@pytest.fixture(scope="session")
def half_batch() -> dict[str, list[list[int]]]:
    """A row with 259 label tokens, a number that bfloat16 does not have."""
    ids = list(range(3, 263))
    return {"input_ids": [ids], "labels": [ids]}


@pytest.fixture(scope="session")
def launch(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Runs]:
    """Fine-tunes and checks on several ranks, all in one launch."""

    def run(ranks: int, mains: dict[str, Any], checks: dict[str, Any]) -> Runs:
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        for name, flags in mains.items():
            # upstream puts what is fully trained elsewhere than the adapters
            flags["dist_checkpoint_root_folder"] = str(folder / name)
        (folder / "runs.json").write_text(json.dumps({"mains": mains, "checks": checks}))
        logs = tmp_path_factory.mktemp("logs")
        return Runs(folder, run_ranks(SCRIPT, folder, ranks=ranks, env=environment, logs=logs))

    return run


@pytest.fixture(scope="session")
def two_ranks(
    launch: Callable[..., Runs],
    lora: dict[str, Any],
    uneven: dict[str, Any],
    full: dict[str, Any],
    half_batch: dict[str, Any],
) -> Runs:
    """Runs on two ranks."""
    lora = lora | {"batch_size_training": GLOBAL_BATCH // 2}
    mains = {
        strategy: lora | {"sharding_strategy": strategy}
        for strategy in ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD")
    }
    mains["offloaded"] = lora | {"fsdp_cpu_offload": True}
    mains["kept-activations"] = lora | {"activation_policy": "keep"}
    mains["accumulated"] = lora | {"batch_size_training": 1, "gradient_accumulation_steps": 2}
    mains["uneven"] = uneven | {"batch_size_training": UNEVEN_BATCH // 2, "samples": 2}
    mains["uneven-padded"] = uneven | PADDED | {"batch_size_training": UNEVEN_PADDED_BATCH // 2}
    mains["full"] = full | {"batch_size_training": GLOBAL_BATCH // 2}
    mains["4bit"] = lora | NF4
    mains["4bit-grad-op"] = lora | NF4 | {"sharding_strategy": "SHARD_GRAD_OP"}
    mains["4bit-hybrid"] = lora | NF4 | {"sharding_strategy": "HYBRID_SHARD"}
    mains["4bit-offloaded"] = lora | NF4 | {"fsdp_cpu_offload": True}
    mains["4bit-kept-activations"] = lora | NF4 | {"fsdp_activation_checkpointing": False}
    replicated = {"sharding_strategy": "NO_SHARD"}
    mains["4bit-replicated"] = lora | NF4 | replicated
    little = {"low_cpu_fsdp": True}
    mains["low-cpu"] = lora | little
    mains["low-cpu-offloaded"] = lora | little | {"fsdp_cpu_offload": True}
    mains["low-cpu-replicated"] = lora | little | replicated
    mains["low-cpu-full"] = full | little | {"batch_size_training": GLOBAL_BATCH // 2}
    mains["paged"] = lora | replicated | {"optimizer": "paged_adamw"}
    mains["8bit-replicated"] = lora | {"quantization": "8bit"} | replicated
    short = lora | {"lora_dropout": 0.1, "max_train_step": 2, "save_steps": 2}
    for strategy in ("FULL_SHARD", "NO_SHARD"):
        dropped = short | {"sharding_strategy": strategy}
        mains[f"recomputed-{strategy}"] = dropped
        mains[f"overflowed-{strategy}"] = dropped | {
            "fsdp_activation_checkpointing": False,
            "overflows_on": 1,
        }
    model = {"model_name": lora["model_name"]}
    checks = {"sentinels": model, "half": model | {"data": half_batch}, "packed": model}
    checks |= {"norm": model, "step": model, "averaged": model, "trained": model}
    checks["answers"] = model
    return launch(2, mains, checks)


@pytest.fixture(scope="session")
def four_ranks(launch: Callable[..., Runs], lora: dict[str, Any]) -> Runs:
    """Runs on four ranks: two copies of the model, each on two ranks, and one on all four."""
    lora = lora | {"batch_size_training": GLOBAL_BATCH // 4}
    hybrid = {
        "sharding_strategy": "HYBRID_SHARD",
        "hsdp": True,
        "replica_group_size": 2,
        "sharding_group_size": 2,
    }
    mains = {"FULL_SHARD": lora, "HYBRID_SHARD": lora | hybrid}
    mains["low-cpu-hybrid"] = lora | hybrid | {"low_cpu_fsdp": True}
    model = {"model_name": lora["model_name"]}
    return launch(4, mains, {"sentinels": model, "hybrid-sentinels": model | {"hsdp": True}})


@pytest.fixture(scope="session")
def one_process(
    lora: dict[str, Any],
    uneven: dict[str, Any],
    full: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Run]:
    """The same trainings in this process, each when first requested."""
    flags = {
        "lora": lora | {"batch_size_training": GLOBAL_BATCH},
        "uneven": uneven | {"batch_size_training": UNEVEN_BATCH, "samples": 2},
        "uneven-padded": uneven | PADDED | {"batch_size_training": UNEVEN_PADDED_BATCH},
        "full": _without_fsdp(full) | {"batch_size_training": GLOBAL_BATCH},
        "paged": lora | {"optimizer": "paged_adamw", "batch_size_training": GLOBAL_BATCH},
        "4bit": lora | NF4 | {"batch_size_training": GLOBAL_BATCH},
        "8bit": lora | {"quantization": "8bit", "batch_size_training": GLOBAL_BATCH},
    }
    runs: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in runs:
            runs[name] = Run(tmp_path_factory.mktemp(name))
            main(**flags[name], output_dir=str(runs[name].output))
        return runs[name]

    return run


def _without_fsdp(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that one process takes: how FSDP saves is refused there."""
    return {name: value for name, value in flags.items() if name != "checkpoint_type"}
