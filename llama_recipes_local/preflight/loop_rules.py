"""Rules for the training loop: schedule, optimiser, validation, recomputation, profiling."""

from collections.abc import Iterable

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.optimizer_names import BITSANDBYTES, DECAYING, SCHEDULERS
from llama_recipes_local.configs.training import AUTO, FULL, RECOMPUTING, SELECTIVE
from llama_recipes_local.errors import Problem
from llama_recipes_local.program import command
from llama_recipes_local.run import Run

# upstream's profiler waits for one step, warms up for two and records three
PROFILED_STEPS = 7


def check_warmup(run: Run) -> list[Problem]:
    """Find a warm-up that is longer than the run."""
    train = run.train
    if not 0 < train.max_train_step <= train.warmup_steps:
        return []
    return [
        Problem(
            f"--warmup_steps {train.warmup_steps} with --max_train_step {train.max_train_step}",
            f"the run would end before the learning rate is --lr {train.lr}",
            f"give --warmup_steps less than {train.max_train_step}",
        )
    ]


def check_samples(run: Run) -> list[Problem]:
    """Find flags that ask for answers from a model that cannot answer during training."""
    train = run.train
    method = METHODS.get(train.peft_method) if train.use_peft else None
    other = method is not None and not method.is_mergeable
    offloads = train.enable_fsdp and run.fsdp.fsdp_cpu_offload
    if not (offloads or other):
        return []
    why = "--fsdp_cpu_offload" if offloads else f"--peft_method {train.peft_method}"
    asked = {"samples": train.samples, "eval_generation_rows": train.eval_generation_rows}
    return [
        Problem(
            f"--{flag} {count} with {why}",
            "during a run, only LoRA and full models answer, with their weights on the device",
            f"leave --{flag} out, and measure the result: {command('evaluate')}",
        )
        for flag, count in asked.items()
        if count
    ]


def check_schedule_settings(run: Run) -> list[Problem]:
    """Find settings that the chosen schedule does not have."""
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
            f"it only applies to --scheduler {' or '.join(takers)}",
            f"leave it out, or use --scheduler {next(iter(takers))}",
        )
        for flag, takers in owners.items()
        if flag in run.given and name not in takers
    ]


def check_optimizer(run: Run) -> list[Problem]:
    """Find an optimiser that cannot update sharded parameters."""
    name = run.fsdp.optimizer.lower()
    if name not in BITSANDBYTES or not run.is_sharded:
        return []
    return [
        Problem(
            f"--optimizer {name} with weights that are sharded",
            "bitsandbytes cannot update a parameter that is sharded",
            "use --optimizer AdamW, or replicate the weights: --sharding_strategy NO_SHARD",
        )
    ]


def check_validation(run: Run) -> list[Problem]:
    """Find validation that is both asked for and switched off."""
    train = run.train
    if not train.eval_steps or train.run_validation:
        return []
    return [
        Problem(
            f"--eval_steps {train.eval_steps} with --run_validation False",
            "nothing would be validated",
            "leave one of them out",
        )
    ]


def check_profiling(run: Run) -> list[Problem]:
    """Find a profiler or FLOP counter whose steps would not be reached."""
    train = run.train
    if train.use_profiler and train.flop_counter:
        return [
            Problem(
                "--use_profiler with --flop_counter",
                "both watch the same steps",
                "leave one of them out",
            )
        ]
    steps = PROFILED_STEPS if train.use_profiler else train.flop_counter_start + 1
    asked = train.use_profiler or train.flop_counter
    if not asked or not 0 < train.max_train_step < steps:
        return []
    return [
        Problem(
            f"--max_train_step {train.max_train_step} with a profiler or FLOP counter",
            "the first steps are warm-up and not measured",
            f"give --max_train_step {steps} or more",
        )
    ]


def check_gradient_checkpointing(run: Run) -> list[Problem]:
    """Find flags that contradict each other about recomputing activations."""
    asked, with_fsdp = run.train.gradient_checkpointing, run.fsdp.fsdp_activation_checkpointing
    if not run.train.enable_fsdp or "gradient_checkpointing" not in run.given:
        return []
    if run.train.activation_policy != AUTO:  # see check_activation_policy
        return []
    if asked == with_fsdp:
        return []
    return [
        Problem(
            f"--gradient_checkpointing {asked} with --enable_fsdp",
            f"with FSDP, --fsdp_activation_checkpointing decides, which is {with_fsdp}",
            f"give --fsdp_activation_checkpointing {asked}",
        )
    ]


def check_activation_policy(run: Run) -> list[Problem]:
    """Find flags that contradict the policy about recomputing activations."""
    policy = run.train.activation_policy
    values = {
        "gradient_checkpointing": run.train.gradient_checkpointing,
        "fsdp_activation_checkpointing": run.fsdp.fsdp_activation_checkpointing,
    }
    if policy == AUTO:
        return []
    recomputes = policy in RECOMPUTING
    does = "recomputes layers" if recomputes else "keeps what layers compute"
    return [
        Problem(
            f"--activation_policy {policy} with --{flag} {value}",
            f"the policy {does}",
            "leave one of them out",
        )
        for flag, value in values.items()
        if flag in run.given and value != recomputes
    ]


def check_selective(run: Run) -> list[Problem]:
    """Find a run that cannot recompute the norms' outputs, although it is asked to."""
    train = run.train
    if train.activation_policy != SELECTIVE:
        return []
    what, fix = f"--activation_policy {SELECTIVE}", f"use --activation_policy {FULL}"
    if not train.use_fast_kernels:
        why = "only its kernels recompute the norms' outputs"
        return [Problem(f"{what} without --use_fast_kernels", why, f"add it, or {fix}")]
    if train.use_peft and train.peft_method != "lora":
        why = "norms' outputs are only kept for LoRA and for weights that are trained"
        return [Problem(f"{what} with {train.peft_method}", why, fix)]
    return []
