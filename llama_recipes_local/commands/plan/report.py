"""A plan as text, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_recipes_local.planning.flags import changes, words
from llama_recipes_local.planning.host import checkpoint_gb, disk_gb, host_gib
from llama_recipes_local.planning.search import Outcome
from llama_recipes_local.planning.setting import FULL, KEEP, OFFLOAD, SELECTIVE, Setting
from llama_recipes_local.program import python
from llama_recipes_local.screen import shell_command

if TYPE_CHECKING:
    from llama_recipes_local.commands.plan.command import Plan

POLICIES = {
    KEEP: "activations kept",
    SELECTIVE: "some activations computed again",
    FULL: "activations computed again",
    OFFLOAD: "activations computed again, layers' inputs in host memory",
}
NEXT = 2
"""Settings that are shown beside the fastest."""


def as_text(plan: Plan) -> str:
    """Return the plan in paragraphs."""
    best, *rest = plan.outcomes
    parts = [_head(plan)]
    if plan.others:
        parts.append("\n".join(["what fits:", *_methods(plan)]))
    method = next((f" {name}" for name, each in plan.others.items() if each is best), "")
    heading = f"fastest{method}" if best.fits else "needs the least, and does not fit"
    parts.append("\n".join([f"{heading}: {describe(best.setting)}", *_details(plan, best)]))
    others = [_line(each) for each in rest[:NEXT]]
    if others:
        parts.append("\n".join(["next:", *others]))
    if best.fits:
        parts.append(f"command:\n{shell_command(command(plan, best))}")
    parts.append(_basis(plan))
    return "\n\n".join(parts)


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    return {
        "model": plan.model,
        "weights": plan.shape.weights,
        "trained": plan.asked.trained,
        "gpu": {"name": plan.card.name, "memory_gib": plan.card.memory},
        "gpus": plan.asked.ranks.world,
        "global_batch_rows": plan.asked.global_batch,
        "tokens_an_epoch": plan.tokens,
        "methods": {name: _numbers(plan, each) for name, each in plan.others.items()},
        "settings": [_numbers(plan, each) for each in plan.outcomes],
    }


def describe(setting: Setting) -> str:
    """Return what was chosen of a setting, in words."""
    batch = setting.batch
    parts = [setting.ranks.sharding] if setting.ranks.uses_fsdp else []
    rows = f"{batch.rows} row{'s' if batch.rows > 1 else ''} at a time"
    times = f", {batch.accumulation} times a step" if batch.accumulation > 1 else ""
    return ", ".join([*parts, POLICIES[setting.policy], f"{rows}{times}"])


def command(plan: Plan, chosen: Outcome) -> list[str]:
    """Return the words of the command that trains so."""
    ranks = chosen.setting.ranks
    flags = {**plan.flags, **changes(chosen.setting, plan.asked)}
    shown = {name: True if str(value) == "True" else value for name, value in flags.items()}
    start = [python()]
    if ranks.uses_fsdp:
        start = ["torchrun", "--nproc_per_node", str(ranks.world // ranks.hosts)]
    if ranks.hosts > 1:
        start += ["--nnodes", str(ranks.hosts), "--rdzv_backend", "c10d"]
        start += ["--rdzv_endpoint", "HOST:29500"]
    return [*start, "finetuning.py", *words(shown)]


def _head(plan: Plan) -> str:
    asked, gpus = plan.asked, plan.asked.ranks.world
    many = f"{gpus} x " if gpus > 1 else ""
    trained = asked.trained / plan.shape.weights
    return (
        f"{plan.model}: {plan.shape.weights / 1e9:.2f}B weights, {_count(asked.trained)} trained "
        f"({trained:.2%}), on {many}{plan.card.name} with {plan.card.memory:.1f} GiB\n"
        f"a step: {asked.global_batch} rows of {asked.batch.length:,} tokens"
    )


def _count(number: float) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.1f}M"


def _methods(plan: Plan) -> list[str]:
    width = max(map(len, plan.others))
    return [f"  {name:<{width}}  {_figures(each)}" for name, each in plan.others.items()]


def _figures(found: Outcome) -> str:
    speed = f"{found.tokens:>9,.0f} tok/s" if found.fits else f"{'does not fit':>15}"
    return f"{found.needs:6.1f} GiB, {speed}: {describe(found.setting)}"


def _line(found: Outcome) -> str:
    return f"  {_figures(found)}"


def _details(plan: Plan, best: Outcome) -> list[str]:
    """Return the lines below the setting: memory, speed, hours, host, disk."""
    parts = best.memory.parts()
    listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
    spent = {name: part / best.seconds.step for name, part in vars(best.seconds).items()}
    shares = ", ".join(f"{name} {part:.0%}" for name, part in spent.items() if part >= 0.01)
    world = plan.asked.ranks.world
    each = f" ({best.tokens / world:,.0f} a GPU)" if world > 1 else ""
    outside = best.needs - best.memory.gib
    lines = [
        f"  memory: {best.needs:.1f} GiB of {best.has:.1f}: {listed}, outside torch {outside:.1f}",
        f"  speed: {best.tokens:,.0f} tok/s{each}, {best.seconds.step:.2f} s a step: {shares}",
    ]
    train = plan.train
    if plan.tokens is not None:
        hours = plan.tokens * train.num_epochs / best.tokens / 3600
        epochs = f"{train.num_epochs} epoch{'s' if train.num_epochs > 1 else ''}"
        lines.append(
            f"  time: {_duration(hours)} for {epochs} of {plan.tokens:,} tokens ({plan.counted})"
        )
    host = host_gib(best.setting, train.low_cpu_fsdp, train.async_save)
    disk = disk_gb(best.setting, train.save_steps, train.save_total_limit)
    once = checkpoint_gb(best.setting)
    shared = host_gib(best.setting, True, train.async_save)
    hint = f" ({shared:.0f} with --low_cpu_fsdp)" if shared < host - 1 else ""
    lines.append(
        f"  host memory: {host:.0f} GiB a node{hint}; "
        f"disk: {disk:.1f} GB, a checkpoint {once:.1f} GB"
    )
    return lines


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _basis(plan: Plan) -> str:
    card = plan.card
    rate = "measured" if card.measured else "78% of the data sheet's"
    return (
        f"basis: {card.rate:,.0f} TFLOP/s ({rate}) and {card.bandwidth} TB/s of {card.name}, "
        f"{plan.asked.batch.document} tokens a document, a label at half of them; docs/hardware.md "
        "has what was measured beside what is predicted"
    )


def _numbers(plan: Plan, found: Outcome) -> dict[str, Any]:
    setting = found.setting
    return {
        "fits": found.fits,
        "sharding": setting.ranks.sharding,
        "activations": setting.policy,
        "rows": setting.batch.rows,
        "accumulation": setting.batch.accumulation,
        "needs_gib": round(found.needs, 2),
        "peak_gib": round(found.memory.gib, 2),
        "memory_gib": {name: round(size, 3) for name, size in found.memory.parts().items()},
        "tokens_per_second": round(found.tokens),
        "step_seconds": {name: round(part, 4) for name, part in vars(found.seconds).items()},
        "host_gib": round(host_gib(setting, plan.train.low_cpu_fsdp), 1),
        "checkpoint_gb": round(checkpoint_gb(setting), 3),
        "flags": changes(setting, plan.asked),
        "command": command(plan, found),
    }
