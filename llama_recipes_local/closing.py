"""The text at the end of a finished run: a box with the results, and the commands to try next.

The box names the model, the data, the losses before and after training, the work and the output
folder, followed by the sections that other modules have added to ``Run.closing``. The commands
below the box are complete, so that they can be copied into a shell.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.model_checkpointing import checkpoint_folder
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.weight_files import has_weights
from llama_recipes_local.program import program
from llama_recipes_local.reports.run_page import PAGE
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import CONFIGURATION_FILE
from llama_recipes_local.screen import box, clock, shell_command, shown_path

NEXT_COMMANDS = 3


class Next(NamedTuple):
    """A command to continue with, and what it is for."""

    what: str
    words: Sequence[str]


def closing_text(run: Run) -> str:
    """Return what a run that has come to its end prints last, on the first rank."""
    saved = saved_folder(run)
    blocks = [_columns(facts(run)), *(section.splitlines() for section in run.closing)]
    text = box("done", [block for block in blocks if block])
    commands = _next_commands(run, saved)[:NEXT_COMMANDS] if saved else []
    shown = (f"# {each.what}\n{shell_command(each.words)}" for each in commands)
    return "\n\n".join([text, *(["\n".join(["next:", *shown])] if saved else [])])


def facts(run: Run) -> dict[str, str]:
    """Return what was trained, on what, how it went and where it is, in words."""
    saved = saved_folder(run)
    place = {"saved in": shown_path(saved)} if saved else {}
    page = Path(run.train.output_dir) / PAGE
    place |= {"report": shown_path(page)} if page.is_file() else {}
    went = {**_losses(run), **_work(run), **_ending(run)}
    return {"trained": _trained(run), "data": _data(run), **went, **place}


def saved_folder(run: Run) -> Path | None:
    """Return the folder of the adapter or model; None if there is none."""
    output = Path(run.train.output_dir)
    if not run.train.save_model:
        return None
    if run.train.use_peft:
        return output if (output / ADAPTER_WEIGHTS).is_file() else None
    if has_weights(output):
        return output
    sharded = checkpoint_folder(run.train)
    saved = run.train.enable_fsdp and any(sharded.glob("*.safetensors"))
    return sharded if saved else None


def _trained(run: Run) -> str:
    model = Path(run.train.model_name).expanduser().resolve().name
    return f"{model}, {_method(run)}"


def _data(run: Run) -> str:
    files = getattr(run.dataset, "data_path", "") if run.train.dataset == "local_dataset" else ""
    rows = run.data.splits.get("train") if run.data is not None else None
    counted = f", {len(rows):,} rows" if isinstance(rows, TokenRows) else ""
    mixed = ", ".join(source.name for source in run.mixed)
    return f"{files or mixed or run.train.dataset}{counted}"


def _method(run: Run) -> str:
    train = run.train
    if train.use_peft:
        bits = f" on {train.quantization} weights" if train.quantization else ""
        return METHODS[train.peft_method].title + bits
    if train.train_only or train.top_layers:
        return train.train_only or f"{train.top_layers} new top layers"
    return f"all but {train.num_freeze_layers} layers" if train.freeze_layers else "all weights"


def _losses(run: Run) -> dict[str, str]:
    """Return the training loss of each source of a mixture, and the validation losses."""
    results = run.results
    by_source = results.get("train_loss_by_source") if results.get("trained") else None
    each = (f"{name} {loss:.4f}" for name, loss in (by_source or {}).items())
    trained = {"training loss": f"{', '.join(each)} in the last epoch"} if by_source else {}
    return trained | _validation_losses(run)


def _validation_losses(run: Run) -> dict[str, str]:
    """Return the losses before and after, which are of the same rows."""
    results = run.results
    before, after = results.get("eval_loss_before"), results.get("eval_loss_after")
    if not results.get("trained") or after is None:
        return {}
    if before is None:
        other = " (before: of other batches, so it is not compared)"
        text = f"{after:.4f} after training" + (other if results["other_batches"] else "")
        return {"validation loss": text, "perplexity": f"{perplexity(after):.3f}"}
    return {
        "validation loss": f"{before:.4f} before, {after:.4f} after training",
        "perplexity": f"{perplexity(before):.3f} before, {perplexity(after):.3f} after",
    }


def _work(run: Run) -> dict[str, str]:
    """Return the steps, tokens and time of the whole run; of a resumed one, since its beginning."""
    results = run.results
    if not results.get("steps"):
        return {}
    tokens = results["tokens"]
    counted = f", {tokens:,} tokens" if tokens is not None else ""
    rest = " with validation" if results.get("eval_loss_after") is not None else ""
    steps = f"{results['steps']:,} step" + "s" * (results["steps"] > 1)
    return {"work": f"{steps}{counted}, {clock(results['seconds'])}{rest}"}


def _ending(run: Run) -> dict[str, str]:
    """Return why a run stopped early, and which validation's model is saved if not the last's."""
    results = run.results
    ended = {"stopped": str(results["stopped"])} if "stopped" in results else {}
    if results.get("best_step", results.get("steps")) != results.get("steps"):
        ended["best"] = str(results["best"]) + ", which is saved" * run.train.save_model
    return ended


def _next_commands(run: Run, saved: Path) -> list[Next]:
    """Return what can be done with the result, the most useful first."""
    folder, start = shown_path(saved), program()
    kind = "merged" if run.train.use_peft else "model"
    new = shown_path(_free(Path(f"{saved.resolve()}-{kind}")))
    if not run.train.use_peft and not (saved / "config.json").is_file():  # of a sharded model
        return [Next("make a model's folder of it", [*start, "convert", folder, "--out", new])]
    flag = "--adapter" if run.train.use_peft else "--model_name"
    generate = [*start, "generate", flag, folder]
    example = run.data.example if run.data is not None else ""
    ask, talk = [*generate, "--prompt", example], Next("talk to it", [*generate, "--chat"])
    commands = [Next("try it", ask)] if example else [talk]
    # without a record of the run it does not know the data
    if find_spec("scipy") is not None and (saved / CONFIGURATION_FILE).is_file():
        measure = [*start, "evaluate", flag, folder, "--max_examples", "100"]
        commands.append(Next("measure it", measure))
    if run.train.use_peft and METHODS[run.train.peft_method].is_mergeable:
        merge = [*start, "merge", "--adapter", folder, "--out", new]
        commands.append(Next("make a model of it that needs no adapter", merge))
    return [*commands, talk] if example else commands


def _free(path: Path) -> Path:
    """Return a path, or its first numbered neighbour, that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(each for each in chain([path], numbered) if not each.exists())


def _columns(facts: dict[str, str]) -> list[str]:
    width = max(map(len, facts))
    return [f"{name:<{width}}  {value}" for name, value in facts.items()]
