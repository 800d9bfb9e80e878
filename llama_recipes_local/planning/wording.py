"""Settings and what they need, in words."""

import textwrap

from llama_recipes_local import configs
from llama_recipes_local.planning.host import checkpoint_gb, disk_gb, host_gib
from llama_recipes_local.planning.hours import Duration, duration
from llama_recipes_local.planning.memory import Memory
from llama_recipes_local.planning.search import Outcome
from llama_recipes_local.planning.setting import FULL, KEEP, OFFLOAD, SELECTIVE, Setting

POLICIES = {
    KEEP: "activations kept",
    SELECTIVE: "norms recomputed",
    FULL: "activations recomputed",
    OFFLOAD: "recomputed, inputs in host memory",
}
COLUMNS = 80


def wrapped(line: str, indent: int) -> str:
    """Return a line broken between words into lines of 80 columns, all but the first indented."""
    return textwrap.fill(
        line,
        COLUMNS,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def in_rows(count: int) -> str:
    """Return a number of rows."""
    return f"{count:,} row{'s' if count > 1 else ''}"


def describe(setting: Setting) -> str:
    """Return in words what was chosen in a setting."""
    batch = setting.batch
    parts = [setting.ranks.sharding] if setting.ranks.uses_fsdp else []
    rows = in_rows(batch.rows)
    times = f", {batch.accumulation:,} times a step" if batch.accumulation > 1 else ""
    return ", ".join([*parts, POLICIES[setting.policy], f"{rows}{times}"])


def figures(found: Outcome) -> str:
    """Return a setting's memory and speed; of one that does not fit, what it needs."""
    if not found.fits:
        return f"{found.needs:6.1f} GiB: does not fit"
    return f"{found.needs:6.1f} GiB, {_speed(found.tokens):>9} tok/s: {describe(found.setting)}"


def _speed(tokens: float) -> str:
    return f"{tokens:,.{0 if tokens >= 10 else 1}f}"


def by_part(memory: Memory) -> str:
    """Return the GiB of each part of a device's memory."""
    parts = memory.parts().items()
    return ", ".join(f"{name} {size:.1f}" for name, size in parts if size >= 0.05)


def details(
    best: Outcome,
    train: configs.train_config,
    tokens: int | None = None,
    counted: str = "",
    held_out: int | None = None,
    rows: int | None = None,
) -> list[str]:
    """Return lines with what a setting needs: memory, speed, hours, host memory, disk.

    Args:
        best: the setting's outcome.
        train: the run's configuration, for epochs and what is saved.
        tokens: tokens of an epoch; None if unknown.
        counted: where the number of tokens comes from.
        held_out: tokens of the part that is validated on; None if unknown.
        rows: of an epoch; None if they are not packed yet.
    """
    spent = {name: part / best.seconds.step for name, part in vars(best.seconds).items()}
    shares = ", ".join(f"{name} {part:.0%}" for name, part in spent.items() if part >= 0.01)
    world, on_cpu = best.setting.ranks.world, best.setting.on_cpu
    each = f" ({_speed(best.tokens / world)} a {'rank' if on_cpu else 'GPU'})" if world > 1 else ""
    outside = f"outside torch {best.needs - best.memory.gib:.1f}"
    parts = ", ".join(filter(None, [by_part(best.memory), outside]))  # a tiny model has no parts
    lines = [
        f"  memory: {best.needs:.1f} GiB of {best.has:.1f}: {parts}",
        f"  speed: {_speed(best.tokens)} tok/s{each}, {_seconds(best.seconds.step)} a step: "
        f"{shares}",
    ]
    if tokens is not None:
        took = duration(best, train, tokens, held_out, rows)
        validated = _validated(took, train, held_out)
        lines.append(f"  time: {_training_time(took, train, tokens, counted)}{validated}")
    elif counted:
        lines.append(f"  time: not known ({counted})")
    disk = disk_gb(best.setting, train.save_steps, train.save_total_limit)
    every = "each checkpoint" if train.save_steps else "with --save_steps, each checkpoint"
    lines.append(f"  disk: {_size(disk)}; {every} {_size(checkpoint_gb(best.setting))}")
    if not on_cpu:  # whose memory that is
        lines.append(f"  host: {_host(best, train)}")
    return [wrapped(line, 4) for line in lines]


def _host(best: Outcome, train: configs.train_config) -> str:
    """Return how much memory each host needs."""
    host = host_gib(best.setting, train.low_cpu_fsdp, train.async_save)
    shared = host_gib(best.setting, True, train.async_save)
    hint = f" ({shared:,.0f} with --low_cpu_fsdp)" if shared < host - 1 else ""
    return f"{host:,.0f} GiB of memory on each node{hint}"


def _size(gb: float) -> str:
    if gb >= 1:
        return f"{gb:,.1f} GB"
    return f"{gb * 1000:.0f} MB" if gb >= 0.001 else "under 1 MB"


def _training_time(took: Duration, train: configs.train_config, tokens: int, counted: str) -> str:
    """Return how long training takes, of all epochs or of the steps after which it ends."""
    steps = f"{took.steps:,} step{'s' if took.steps > 1 else ''}"
    if took.steps == train.max_train_step:
        return f"{_duration(took.hours)} for {steps} (--max_train_step)"
    epochs = f"{train.num_epochs} epoch{'s' if train.num_epochs > 1 else ''}"
    return f"{_duration(took.hours)} for {epochs} of {tokens:,} tokens ({counted}), {steps}"


def _validated(took: Duration, train: configs.train_config, held_out: int | None) -> str:
    """Return how much of it is for validations."""
    if train.run_validation and held_out is None:
        return ", without validations"
    if not took.validations:
        return ""
    each = f", {_duration(took.validating / 3600)} of it for {took.validations:,} validations"
    return f"{each} without answers" if train.eval_generation_rows else each


def _seconds(step: float) -> str:
    return f"{step:.2f} s" if step < 100 else _duration(step / 3600)


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
