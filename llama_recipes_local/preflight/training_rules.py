"""Settings of the training loop: schedule, optimiser, validation, loggers, float16."""

from collections.abc import Iterable
from typing import Any

from llama_recipes_local import extras
from llama_recipes_local.errors import Problem
from llama_recipes_local.optimization.optimizers import BITSANDBYTES, OPTIMIZERS
from llama_recipes_local.optimization.schedules import DECAYING, SCHEDULERS
from llama_recipes_local.preflight.values import ABOVE_0, AT_LEAST_0, Range, choice, out_of_range
from llama_recipes_local.run.resolution import Run

RANGES = {
    "warmup_steps": AT_LEAST_0,
    "eval_steps": AT_LEAST_0,
    "min_lr_ratio": Range("from 0 to 1", lambda number: 0 <= number <= 1),
    "wsd_decay_ratio": Range("above 0 and at most 1", lambda number: 0 < number <= 1),
    "gamma": ABOVE_0,  # else the rate would be 0, or climb the loss, from the second epoch on
}
REPORTERS = ("tensorboard", "wandb", "mlflow")


def check_training(run: Run) -> list[Problem]:
    """Return what is wrong with how the loop is set up."""
    return [
        *choice("scheduler", run.train.scheduler, SCHEDULERS),
        *_ranges(run.train),
        *_warmup(run.train),
        *_unused(run),
        *_optimizer(run),
        *_validation(run.train),
        *_reporters(run.train),
        *_half_precision(run),
        *_gradient_checkpointing(run),
    ]


def _ranges(train: Any) -> list[Problem]:
    clipping = {"gradient_clipping_threshold": ABOVE_0} if train.gradient_clipping else {}
    return out_of_range(train, RANGES | clipping)


def _warmup(train: Any) -> list[Problem]:
    if not 0 < train.max_train_step <= train.warmup_steps:
        return []
    return [
        Problem(
            f"--warmup_steps {train.warmup_steps} with --max_train_step {train.max_train_step}",
            f"the run would end before the learning rate is --lr {train.lr}",
            f"give --warmup_steps less than {train.max_train_step}",
        )
    ]


def _unused(run: Run) -> list[Problem]:
    """Find settings of a schedule that the one chosen does not have."""
    owners: dict[str, Iterable[str]] = {
        "gamma": ("step",),
        "min_lr_ratio": DECAYING,
        "wsd_decay_ratio": ("wsd",),
    }
    name = run.train.scheduler
    if name not in SCHEDULERS:
        return []
    return [
        Problem(
            f"--{flag} with --scheduler {name}",
            f"it would be ignored: it is for --scheduler {' or '.join(takers)}",
            f"leave it out, or use --scheduler {next(iter(takers))}",
        )
        for flag, takers in owners.items()
        if flag in run.given and name not in takers
    ]


def _optimizer(run: Run) -> list[Problem]:
    name = run.fsdp.optimizer.lower()
    problems = choice("optimizer", name, OPTIMIZERS)
    if name not in BITSANDBYTES:
        return problems
    if run.is_sharded:
        problems.append(
            Problem(
                f"--optimizer {name} with weights that are sharded",
                "bitsandbytes has no update for a parameter that is spread over ranks",
                "use --optimizer AdamW, or keep whole weights: --sharding_strategy NO_SHARD",
            )
        )
    return problems + extras.missing("bitsandbytes", f"--optimizer {name}", "quantization")


def _validation(train: Any) -> list[Problem]:
    if not train.eval_steps or train.run_validation:
        return []
    return [
        Problem(
            f"--eval_steps {train.eval_steps} with --run_validation False",
            "nothing would be validated",
            "leave one of them out",
        )
    ]


def _reporters(train: Any) -> list[Problem]:
    problems = []
    for name in train.report_to:
        unknown = choice("report_to", name, REPORTERS)
        problems += unknown or extras.missing(name, f"--report_to {name}", name)
    return problems


def _half_precision(run: Run) -> list[Problem]:
    if not (run.train.use_fp16 and run.fsdp.pure_bf16):
        return []
    return [
        Problem(
            "--use_fp16 with --pure_bf16",
            "weights are computed in float16 or in bfloat16",
            "leave one of them out; bfloat16 needs no scaler",
        )
    ]


def _gradient_checkpointing(run: Run) -> list[Problem]:
    asked, with_fsdp = run.train.gradient_checkpointing, run.fsdp.fsdp_activation_checkpointing
    if not run.train.enable_fsdp or "gradient_checkpointing" not in run.given:
        return []
    if asked == with_fsdp:
        return []
    return [
        Problem(
            f"--gradient_checkpointing {asked} with --enable_fsdp",
            f"with FSDP --fsdp_activation_checkpointing says so, which is {with_fsdp}",
            f"give --fsdp_activation_checkpointing {asked}",
        )
    ]
