"""Measures how long commands take before they do anything: imports, first word, help, first step.

    python benchmarks/startup.py --model DIR --work DIR [--checkout DIR] [--out results/FILE.json]

``--checkout`` is another checkout with its vendored copy, to compare with. The data is the grammar
data set, cached in ``--work`` by a first run that is not counted. What is not the first step is
measured by the clock; CPU seconds are those of the whole process. The least of the repeats: other
work on the machine only adds. Python has to keep bytecode, see ``why_compiled_each_time``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ["prepare stand-in", "prepare grammar", "inspect", "finetune", "merge", "convert"]
COMMANDS += ["generate", "evaluate"]
NO_MODEL = ["--model_name", "/no/model"]
# ends a run where its first step begins, and prints the CPU seconds until then
FIRST_STEP = """
import os, sys
from llama_recipes_local import finetuning_run
from llama_recipes_local.finetuning import main
from llama_recipes_local.training.stepping import Stepper

def step(self, micro_batches, label_tokens):
    print("CPU", sum(os.times()[:4]), flush=True)
    os._exit(0)

Stepper.step = step
main(model_name=sys.argv[1], dataset="grammar_dataset", use_peft=True, batch_size_training=1,
     context_length=512, run_validation=False, output_dir=sys.argv[2], data_cache=sys.argv[3])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the cache and output")
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    checkout, repeats = args.checkout.resolve(), args.repeats
    package = ["-m", "llama_recipes_local"]
    found = {"import configs": ["-c", "import llama_recipes_local.configs"]}
    found |= {"finetuning.py --help": ["finetuning.py", "--help"]}
    found |= {f"{name} --help": [*package, *name.split(), "--help"] for name in COMMANDS}
    seconds = {
        name: min(until_exit(words, checkout) for _ in range(repeats))
        for name, words in found.items()
    }
    for words in (["finetuning.py"], [*package, "inspect"], [*package, "evaluate"]):
        waited = [until_first_word([*words, *NO_MODEL], checkout) for _ in range(repeats)]
        seconds[f"{words[-1]}: first word"] = min(waited)
    for model in args.model:
        until_first_step(model, args.work, checkout)  # fills the cache
        cpu = min(until_first_step(model, args.work, checkout) for _ in range(repeats))
        seconds[f"{model.name}: CPU seconds to the first step"] = cpu
    for name, taken in seconds.items():
        print(f"{name:48} {taken:6.2f}", flush=True)
    if args.out:
        found_with = {"environment": environment(checkout), "repeats": repeats, "seconds": seconds}
        args.out.write_text(json.dumps(found_with, indent=2) + "\n")


def environment(checkout: Path) -> dict[str, str]:
    """Return the checkout's commit, and the versions and CPUs that the seconds hold for."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    versions = {name: version(name) for name in ("torch", "transformers", "peft")}
    python = platform.python_version()
    return {
        "commit": commit,
        "cpus": str(len(os.sched_getaffinity(0))),
        "python": python,
    } | versions


def start(words: Sequence[str], checkout: Path) -> "subprocess.Popen[str]":
    """Start Python on some words in a checkout."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_exit(words: Sequence[str], checkout: Path) -> float:
    began = time.perf_counter()
    process = start(words, checkout)
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{printed}")
    return time.perf_counter() - began


def until_first_word(words: Sequence[str], checkout: Path) -> float:
    began = time.perf_counter()
    with start(words, checkout) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = time.perf_counter() - began
        process.stdout.read()
    return taken


def until_first_step(model: Path, work: Path, checkout: Path) -> float:
    """Return the CPU seconds of a run until its first step begins."""
    folders = [str(model.resolve()), str(work / f"run-{time.time_ns()}"), str(work / "cache")]
    printed, _ = start(["-c", FIRST_STEP, *folders], checkout).communicate()
    for line in printed.splitlines():
        if line.startswith("CPU "):
            return float(line.split()[1])
    raise RuntimeError(printed)


if __name__ == "__main__":
    main()
