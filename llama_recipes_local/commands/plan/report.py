"""A plan as text, and as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.flags import changes, free_of, words
from llama_recipes_local.planning.host import checkpoint_gb, host_gib
from llama_recipes_local.planning.hours import duration
from llama_recipes_local.planning.search import Outcome
from llama_recipes_local.planning.speed import tokens_a_second
from llama_recipes_local.planning.wording import describe, details, figures, in_rows, wrapped
from llama_recipes_local.program import python
from llama_recipes_local.screen import shell_command

if TYPE_CHECKING:
    from llama_recipes_local.commands.plan.given import Target
    from llama_recipes_local.commands.plan.making_plan import Method, Plan

NEXT = 2
"""Settings that are shown beside the fastest."""

MUCH = 0.8
"""Of a speed: what is slower than this share of it is said."""


def as_text(plan: Plan) -> str:
    """Return the plan in paragraphs."""
    best, *rest = plan.outcomes
    parts = [_head(plan)]
    if plan.methods:
        parts.append("\n".join(["what fits:", *_methods(plan)]))
    found = (f"{name}, " for name, each in plan.methods.items() if each.run is plan.run)
    method = next(found, "")
    heading = "fastest" if best.fits else "needs the least, and does not fit"
    parts.append(
        "\n".join(
            [
                wrapped(f"{method}{heading}: {describe(best.setting)}", 4),
                *details(
                    best,
                    plan.run.train,
                    plan.data.tokens,
                    plan.data.counted,
                    plan.data.held_out,
                    plan.data.padded_rows(plan.run),
                ),
            ]
        )
    )
    others = [wrapped(f"  {figures(each)}", 4) for each in rest[:NEXT] if each.fits]
    if others:
        parts.append("\n".join(["next:", *others]))
    if best.fits:
        parts.append(f"command:\n{shell_command(command(plan, best))}")
        if plan.target.known:
            parts.append(wrapped(f"a run needs the model's folder in the place of {plan.model}", 4))
    parts.append(_basis(plan))
    return "\n\n".join(parts)


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON; steps and hours are those of the first setting."""
    took, data = None, plan.data
    if data.tokens is not None:
        rows = data.padded_rows(plan.run)
        took = duration(plan.outcomes[0], plan.run.train, data.tokens, data.held_out, rows)
    return {
        "model": plan.model,
        "weights": plan.target.shape.weights,
        "trained": plan.asked.trained,
        "gpu": card_as_json(plan.target.card),
        "gpus": plan.asked.ranks.world,
        "global_batch_rows": plan.asked.global_batch,
        "tokens_an_epoch": data.tokens,
        "steps": None if took is None else took.steps,
        "hours": None if took is None else round(took.hours, 4),
        "methods": {name: _numbers(each, each.outcomes[0]) for name, each in plan.methods.items()},
        "settings": [_numbers(plan, each) for each in plan.outcomes],
    }


def card_as_json(card: Card) -> dict[str, Any]:
    """Return what a GPU is taken for."""
    return {
        "name": card.name,
        "memory_gib": card.memory,
        "tflops": card.rate,
        "tb_a_second": card.bandwidth,
        "measured": card.measured,
    }


def command(plan: Method, chosen: Outcome) -> list[str]:
    """Return the words of the command that trains so."""
    ranks = chosen.setting.ranks
    flags = {**plan.run.flags, **own_flags(plan, chosen)}
    shown = {name: True if str(value).lower() == "true" else value for name, value in flags.items()}
    start = [python()]
    if ranks.uses_fsdp:
        start = ["torchrun", "--nproc_per_node", str(ranks.world // ranks.hosts)]
    if ranks.hosts > 1:
        start += ["--nnodes", str(ranks.hosts), "--rdzv_backend", "c10d"]
        start += ["--rdzv_endpoint", "HOST:29500"]
    return [*start, "finetuning.py", *words(shown)]


def own_flags(plan: Method, chosen: Outcome) -> dict[str, Any]:
    """Return the flags of a setting; all but the first name what the run would choose otherwise."""
    always = () if chosen is plan.outcomes[0] else free_of(plan.run)
    return changes(chosen.setting, plan.asked, always)


def _head(plan: Plan) -> str:
    asked, world = plan.asked, plan.asked.ranks.world
    many = f"{world} x " if world > 1 else ""
    trained = asked.trained / plan.target.shape.weights
    model = plan.model
    if model != plan.target.known and plan.target.known:
        model = f"{model} (there is no such folder: a model called {plan.target.known})"
    lines = [
        f"{model}: {_count(plan.target.shape.weights)} weights, {_count(asked.trained)} trained "
        f"({trained:.2%})",
        f"on {many}{plan.target.card.name} with {plan.target.card.memory:.1f} GiB; "
        f"a step: {in_rows(asked.global_batch)} of {asked.batch.length:,} tokens",
    ]
    return "\n".join(wrapped(line, 4) for line in lines)


def _count(number: float) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.1f}M"


def _methods(plan: Plan) -> list[str]:
    width = max(map(len, plan.methods))
    best = {name: each.outcomes[0] for name, each in plan.methods.items()}
    lines = [f"  {name:<{width}}  {figures(each)}" for name, each in best.items()]
    return [wrapped(line, width + 6) for line in lines]


def _basis(plan: Plan) -> str:
    assumed = "" if plan.target.card_is_named else ", assumed by its memory (--gpu NAME)"
    document = min(plan.asked.batch.document, plan.asked.batch.length)
    best, share = plan.outcomes[0], plan.asked.batch.labelled
    labelled = "half" if plan.data.training is None else f"{share:.0%}"
    alone = of_long_documents(best, plan.target)
    slower = f" ({alone:,.0f} tok/s if each row is one)" if alone < MUCH * best.tokens else ""
    return wrapped(
        f"basis: {speed_of(plan.target.card)}{assumed}{_links(plan.target)}; "
        f"{document} tokens a document{slower}, a "
        f"label at {labelled} of them; docs/hardware.md has what was measured beside what is "
        "predicted",
        4,
    )


def _links(target: Target) -> str:
    """Return how fast GPUs are taken to send to each other: all of a node alike."""
    found = []
    if target.world > target.nodes:
        found.append(f"{target.card.link:g} GB/s from each to the others of its node")
    if target.nodes > 1:
        found.append(f"{target.node_link:g} GB/s to other nodes (--node_link)")
    return "".join(f"; {each}" for each in found)


def of_long_documents(found: Outcome, target: Target) -> float:
    """Return the tokens a second where each row is one document, whose tokens see each other."""
    batch = replace(found.setting.batch, document=found.setting.batch.length)
    setting = replace(found.setting, batch=batch)
    return tokens_a_second(setting, target.card, target.node_link)


def speed_of(card: Card) -> str:
    """Return how fast a card is, and how that is known."""
    if card.probed:
        how = "measured on this machine"
    else:
        how = "measured" if card.measured else "78% of the data sheet's"
    rate = f"{card.rate:,.0f}" if card.rate >= 10 else f"{card.rate:.2f}"
    return f"{rate} TFLOP/s ({how}) and {card.bandwidth:.3g} TB/s of {card.like or card.name}"


def _numbers(plan: Method, found: Outcome) -> dict[str, Any]:
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
        "host_gib": round(host_gib(setting, plan.run.train.low_cpu_fsdp), 1),
        "checkpoint_gb": round(checkpoint_gb(setting), 3),
        "flags": own_flags(plan, found),
        "command": command(plan, found),
    }
