"""Makes a result again, step by step, and compares the two to the bit."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local.api.calling import finetune
from llama_recipes_local.api.launching import finetune_launched
from llama_recipes_local.commands.replay.present_places import (
    MADE,
    flags_now,
    given_to_sft,
    in_directory,
)
from llama_recipes_local.commands.replay.same_content import is_same
from llama_recipes_local.custody.custody_file import Files, Manifest, Step, read_manifest
from llama_recipes_local.errors import TrainingError, refusal
from llama_recipes_local.extras import SOURCE
from llama_recipes_local.run.logged_metrics import METRICS_FILE, step_of
from llama_recipes_local.run.record import CUSTODY_FILE

_THREADS = "OMP_NUM_THREADS"


def repeat(manifest: Manifest, given: Mapping[str, Any], out: Path) -> None:
    """Make a result again in the folder ``out``; of several steps each has a folder in it.

    Raises:
        TrainingError: with what differs from the result.
        UsageError: if a step cannot be made here.
    """
    finished = len(manifest.steps) - count_unfinished(manifest.steps)
    steps, made = manifest.steps[-finished:], out
    for number, step in enumerate(steps, 1):
        before = made
        made = out if len(steps) == 1 else out / f"{number}-{step.command}" / _name(steps, number)
        print(f"--> again: {step.command}, into {made}", flush=True)
        with in_directory(step.directory):
            _make(step, given, made, before if number > 1 else None, steps[number - 2])
        last = number == len(steps)
        _compare(step, manifest.path.parent if last else _folder(step, given), made)
    count = sum(len(each.files) for each in steps[-1].results.values())
    print(f"--> the same to the bit: {count} files, in {made}")


def _name(steps: list[Step], number: int) -> str:
    """Return the name of the folder of what a step makes, which files in it may have too."""
    (*_, written) = steps[number - 1].results.values()
    if number < len(steps):  # as the next step read it
        after = steps[number].inputs
        read = Path(next(after[each] for each in (*MADE, "model_name") if each in after).folder)
        return (read.parent if read.name.startswith("checkpoint-") else read).name
    return Path(written.folder).name


def count_unfinished(steps: list[Step]) -> int:
    """Return how many steps cannot be made again: those up to the last without results."""
    return max((number for number, step in enumerate(steps, 1) if not step.results), default=0)


def _folder(step: Step, given: Mapping[str, Any]) -> Path:
    """Return the folder of what a step has made, which need not be there if it is not the last."""
    (*_, written) = step.results.values()
    return Path(str(next((given[each] for each in MADE if each in given), written.folder)))


def _make(
    step: Step, given: Mapping[str, Any], out: Path, before: Path | None, previous: Step
) -> None:
    if step.command == "finetune":
        _finetune(step, given, out)
    elif step.command == "sft":
        _sft(step, given, out)
    else:
        from llama_recipes_local.commands.replay.exporting_again import export_again

        export_again(step, given, out, before, previous)


def _finetune(step: Step, given: Mapping[str, Any], out: Path) -> None:
    import torch

    flags = flags_now(step, given) | {"output_dir": str(out)}
    if flags.get("enable_fsdp") and not flags.get("use_peft"):
        flags["dist_checkpoint_root_folder"] = str(out / "checkpoints")
    if flags.get("use_profiler"):
        flags["profiler_dir"] = str(out / "profiles")
    ranks, threads = _ranks(step), int(step.machine.get("threads", 1))
    if step.machine.get("torchrun"):
        os.environ[_THREADS] = str(threads)
        finetune_launched(ranks, flags)
    else:
        torch.set_num_threads(threads)
        finetune(**flags)


def _ranks(step: Step) -> int:
    """Return how many ranks a step had.

    Raises:
        UsageError: if they were on several hosts.
    """
    ranks, hosts = int(step.machine.get("ranks", 1)), int(step.machine.get("hosts", 1))
    if hosts > 1:
        why = f"it had {ranks} ranks on {hosts} hosts, and this is a single host"
        fix = "compare only: --check; and train again with --config RUN/run_config.json"
        raise refusal("the run cannot be made again here", why, fix)
    return ranks


def _sft(step: Step, given: Mapping[str, Any], out: Path) -> None:
    import torch

    flags = step.flags | {name: [str(each)] for name, each in given_to_sft(given).items()}
    flags |= {"output_dir": [str(out)]}
    words = [word for name, values in flags.items() for word in _words(name, values)]
    ranks, threads = _ranks(step), int(step.machine.get("threads", 1))
    if ranks == 1:
        from llama_recipes_local.commands.sft.command import main

        torch.set_num_threads(threads)
        code = main(words)
    else:
        code = _launched(ranks, words, {**os.environ, _THREADS: str(threads)})
    if code:  # the run has said why
        raise SystemExit(code)


def _launched(ranks: int, words: list[str], environment: dict[str, str]) -> int:
    """Run ``sft.py`` on several ranks of this host; return its exit code.

    Raises:
        UsageError: if it is not there.
    """
    script = SOURCE / "sft.py"
    if not script.is_file():
        fix = "replay it with the Python of a checkout"
        raise refusal(f"{script} is missing", f"the run had {ranks} ranks, which it starts", fix)
    launcher = [sys.executable, "-m", "llama_recipes_local.torchrun", "--standalone"]
    launcher += ["--nnodes", "1", "--nproc_per_node", str(ranks)]
    return subprocess.run([*launcher, str(script), *words], env=environment).returncode


def _words(name: str, values: list[str]) -> list[str]:
    return [f"--{name}={values[0]}"] if len(values) == 1 else [f"--{name}", *values]


def _compare(step: Step, result: Path, out: Path) -> None:
    """Compare a result with the one that was made again.

    Args:
        step: what made it.
        result: its folder.
        out: the folder that it was made in again.

    Raises:
        TrainingError: with what differs.
    """
    made = read_manifest(out / CUSTODY_FILE).steps[-1]
    names: list[str] = []
    for what, was in step.results.items():
        now = made.results.get(what, Files(str(out), {}))
        then = result if what in ("output_dir", "out") else Path(was.folder)
        names += _differing(was, now, then, bool(step.resumed_from))
    if not names:
        return
    lines = [f"the result in {out} is not the same:", *(f"   {name}" for name in names)]
    if step.settings.get("data") != made.settings.get("data"):
        lines.append("   the tokens of the data are others")
    if first := _first_other_loss(result, out):
        lines.append(f"   the first other loss is of step {first}")
    raise TrainingError("\n".join(lines))


def _differing(was: Files, now: Files, folder: Path, resumed: bool) -> Iterator[str]:
    for name, digest in was.files.items():
        if name not in now.files:
            # a run that was interrupted has written a checkpoint there
            if not (resumed and name.startswith("checkpoint-")):
                yield f"{name}: not written"
        elif now.files[name] != digest and not is_same(folder / name, Path(now.folder) / name):
            yield f"{name}: other content"


def _first_other_loss(result: Path, out: Path) -> int | None:
    """Return the first step whose loss differs; None if none does."""
    found = []
    for folder in (result, out):
        path = folder / METRICS_FILE
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found.append({step_of(line): json.loads(line).get("loss") for line in lines})
    steps = (step for step in found[0] if step in found[1] and found[0][step] != found[1][step])
    return min((step for step in steps if step is not None), default=None)
