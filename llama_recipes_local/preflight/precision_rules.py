"""Rules for float16 and bfloat16."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run


def check_float16(run: Run) -> list[Problem]:
    """Find float16 on a machine that cannot train in it."""
    if not run.train.use_fp16:
        return []
    import torch  # which ``plan`` does not

    return [] if torch.cuda.is_available() else [float16_on_cpu("--use_fp16")]


def float16_on_cpu(flag: str) -> Problem:
    """Return the problem that ``flag`` asks for float16 and the CPU is trained on."""
    return Problem(
        f"{flag} on CPU",
        "training in float16 needs a CUDA device",
        "leave it out: on CPU training is in float32",
    )


def check_one_half_precision(run: Run) -> list[Problem]:
    """Find float16 and bfloat16 for the same weights."""
    if not (run.train.use_fp16 and run.fsdp.pure_bf16):
        return []
    return [
        Problem(
            "--use_fp16 with --pure_bf16",
            "weights are computed in float16 or in bfloat16",
            "leave one of them out; bfloat16 needs no scaler",
        )
    ]
