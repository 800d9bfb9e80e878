"""Out of memory: torch's figures, and flags that the run was not given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_runs import replaced_train

from llama_recipes_local.finetuning import main
from llama_recipes_local.kernels.base import ModelKernel
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.training.out_of_memory import out_of_memory_message

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.20 GiB is free. Including non-PyTorch memory, this process has 22.4 GiB in use."
)

QUANTIZED = {
    "use_fast_kernels": True,
    "use_peft": True,
    "quantization": "4bit",
    "batch_size_training": 1,
    "context_length": 512,
}


def test_a_run_out_of_memory_ends_with_one_message(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(original: Any, *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError(SAID)

    with replaced_train(train), pytest.raises(SystemExit) as ended:
        main(
            model_name=str(tiny_model),
            data_root=str(grammar_data),
            dataset="grammar_dataset",
            context_length=128,
            use_peft=True,
            output_dir=str(tmp_path),
        )
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "stopped: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total" in said
    assert "Including" not in said
    assert "\n      --gradient_checkpointing  (" in said


@pytest.mark.parametrize(
    ("flags", "fixes"),
    [
        (
            {"use_fast_kernels": True, "gradient_accumulation_steps": 2},
            [
                "--gradient_checkpointing",
                "--batch_size_training 1 --gradient_accumulation_steps 8",
                "torchrun --nproc_per_node N finetuning.py --enable_fsdp",
                "--use_peft",
                "--context_length 2048",
            ],
        ),
        (
            {
                "use_fast_kernels": True,
                "use_peft": True,
                "gradient_checkpointing": True,
                "batch_size_training": 1,
                "context_length": 512,
            },
            ["torchrun --nproc_per_node N finetuning.py --enable_fsdp", "--quantization 4bit"],
        ),
        (
            {
                "use_fast_kernels": True,
                "use_peft": True,
                "quantization": "4bit",
                "enable_fsdp": True,
                "fsdp_activation_checkpointing": False,
                "batch_size_training": 1,
                "context_length": 2048,
            },
            ["--fsdp_activation_checkpointing True", "--context_length 1024"],
        ),
        (
            QUANTIZED | {"enable_fsdp": True, "activation_policy": "keep"},
            ["--activation_policy full"],
        ),
        (
            QUANTIZED | {"enable_fsdp": True, "activation_policy": "selective"},
            ["--activation_policy full"],
        ),
        (
            QUANTIZED | {"enable_fsdp": True, "activation_policy": "full"},
            ["--activation_policy offload"],
        ),
        (QUANTIZED | {"enable_fsdp": True}, []),
        (
            QUANTIZED | {"enable_fsdp": True, "use_fast_kernels": False},
            ["--use_fast_kernels", "--activation_policy offload"],
        ),
    ],
)
def test_only_flags_not_given_yet_are_proposed(
    flags: dict[str, Any], fixes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelKernel, "unavailable", lambda self: "")
    said = out_of_memory_message(resolve(flags), torch.OutOfMemoryError(SAID))
    proposed = [line.strip().partition("  (")[0] for line in said.splitlines()[2:]]
    assert proposed == fixes
