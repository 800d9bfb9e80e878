"""Trains a real model on the plain path, with fast kernels and in fp8, and tells what differs.

    python benchmarks/quality.py --model DIR --work DIR --out results/FILE.json

300 steps of the grammar data, 2 packed rows of 2,048 tokens a step, three seeds each, all at the
same time on one device: LoRA with r=16 on all linear layers, or with ``--train all`` all weights.
A seed decides the order, an adapter's start and dropout. Shown are the training and validation
curves, the loss and the GLEU of the validation part's prompts that ``evaluate`` finds of each
result, and how far the paths are apart, beside how far the plain path's seeds are. A run whose
result lies in ``--work`` is not repeated, so that a call that was cut is completed by the next.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from real_model import DATASET, judged_by
from runs import ROOT, call, environment

PLAIN = "plain"
PATHS = {
    PLAIN: [],
    "fast": ["--use_fast_kernels"],
    "fp8": ["--use_fast_kernels", "--fp8"],
}
FLAGS = [*DATASET, "--context_length", 2048, "--batch_size_training", 2, "--num_epochs", 4]
FLAGS += ["--scheduler", "linear", "--val_batch_size", 4]
LORA = ["--use_peft", "--r", 16, "--lora_alpha", 32, "--target_modules", "all-linear"]
TRAINED = {"lora": [*LORA, "--lr", 5e-4], "all": ["--lr", 1e-4]}
SMOOTHED = 30
"""Steps of which a smoothed curve is the mean."""
Found = dict[tuple[str, int], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--train", default="lora", choices=list(TRAINED), help="which weights")
    parser.add_argument("--paths", nargs="*", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=0, help="prompts at most; 0 means all")
    parser.add_argument("--batches", type=int, default=0, help="of a validation; 0 means all")
    parser.add_argument("--parallel", type=int, default=9, help="runs at a time")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    where = machine(args.work / "environment.json")
    found: Found = {}
    with ThreadPoolExecutor(args.parallel) as pool:
        runs = [(path, seed) for seed in args.seeds for path in args.paths]
        started = {pool.submit(train_and_judge, args, *run): run for run in runs}
        for ended in as_completed(started):
            found[started[ended]] = ended.result()
            report = {
                "environment": where,
                "steps": args.steps,
                "runs": [{"path": run[0], "seed": run[1], **found[run]} for run in sorted(found)],
                "differences": differences(found, args),
            }
            args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(found, differences(found, args)))


def train_and_judge(args: argparse.Namespace, path: str, seed: int) -> dict[str, Any]:
    """Train once; return the curves, and what ``evaluate`` says of the result."""
    trained, result = args.work / f"{path}-{seed}", result_file(args.work, path, seed)
    if not result.exists():
        try:
            train(args, path, seed, trained, result)
        except RuntimeError as error:
            return {"error": str(error)}
    return {
        "training": column(trained / "metrics.jsonl", "loss"),
        "validation": column(trained / "evaluations.jsonl", "loss"),
        "seconds": column(trained / "metrics.jsonl", "seconds")[-1],
        **judged_by(result),
    }


def train(args: argparse.Namespace, path: str, seed: int, trained: Path, result: Path) -> None:
    """Train once, and have ``evaluate`` judge the result."""
    log, threads = trained.with_suffix(".log"), max(1, (os.cpu_count() or 1) // args.parallel)
    own = ["--model_name", args.model, "--output_dir", trained, "--seed", seed]
    own += ["--max_train_step", args.steps, "--eval_steps", max(1, args.steps // 6)]
    own += ["--max_eval_step", args.batches, "--overwrite_output_dir"]
    call(
        [ROOT / "finetuning.py", *FLAGS, *TRAINED[args.train], *PATHS[path], *own],
        log,
        threads=threads,
    )
    what = "--adapter" if args.train == "lora" else "--model_name"
    judge = ["-m", "llama_recipes_local", "evaluate", what, trained, "--metrics"]
    judge += ["loss,gleu", "--batch_size", 256, "--max_examples", args.prompts, "--out", result]
    call(judge, log, threads=threads)


def machine(file: Path) -> dict[str, str | None]:
    """Return where the runs of a folder were made: recorded when the first is."""
    if not file.exists():
        file.write_text(json.dumps(environment(), indent=1) + "\n")
    recorded: dict[str, str | None] = json.loads(file.read_text())
    return recorded


def result_file(work: Path, path: str, seed: int) -> Path:
    return work / f"{path}-{seed}.json"


def column(file: Path, name: str) -> list[float]:
    """Return a number of each line of a file that a run logged."""
    lines = map(json.loads, file.read_text().splitlines())
    return [round(line[name], 6) for line in lines if name in line]


def differences(found: Found, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how far each path is from the plain one of its seed, and the plain seeds apart."""
    whole = {run: one for run, one in found.items() if "error" not in one}
    plain = sorted(run for run in whole if run[0] == PLAIN)
    pairs = {"between seeds": list(combinations(plain, 2))}
    for path in args.paths:
        if path != PLAIN:
            same_seed = [((PLAIN, seed), (path, seed)) for seed in args.seeds]
            pairs[f"{path} - {PLAIN}"] = [pair for pair in same_seed if set(pair) <= set(whole)]
    return [
        {"between": name, **apart(whole, of)}
        | ({} if name == "between seeds" else {"gleu": gleu_difference(args.work, of)})
        for name, of in pairs.items()
        if of
    ]


def apart(
    found: Found, pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]]
) -> dict[str, float]:
    """Return how far the runs of each pair are apart, and the mean of their signed differences.

    ``training`` and ``validation`` are of the curves: the largest distance of a point, of the
    smoothed training curve and of the validation, over all pairs.
    """

    def values(of: Callable[[dict[str, Any]], Any]) -> list[Any]:
        return [np.subtract(of(found[second]), of(found[first])) for first, second in pairs]

    curves = values(lambda run: smoothed(run["training"]))
    validated = values(lambda run: run["validation"])
    final = values(lambda run: run["validation"][-1])
    return {
        "training": float(max(np.abs(curve).max() for curve in curves)),
        "validation": float(max(np.abs(curve).max() for curve in validated)),
        "final_validation": float(max(abs(value) for value in final)),
        "mean_final_validation": float(mean(final)),
        "share_final_validation": float(
            mean(final) / mean(found[first]["validation"][-1] for first, _ in pairs)
        ),
        "mean_evaluated_loss": float(mean(values(lambda run: run["loss"]["value"]))),
        "mean_gleu": float(mean(values(lambda run: run["gleu"]["value"]))),
        "largest_gleu": float(max(map(abs, values(lambda run: run["gleu"]["value"])))),
    }


def smoothed(curve: Sequence[float]) -> Any:
    """Return the mean of each ``SMOOTHED`` steps."""
    width = min(SMOOTHED, len(curve))
    return np.convolve(curve, np.ones(width) / width, mode="valid")


def gleu_difference(
    work: Path, pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]]
) -> dict[str, float]:
    """Return the difference of GLEU over all seeds' answers, with its interval over prompts."""
    from llama_recipes_local.answers.measures import Measure
    from llama_recipes_local.commands.evaluate.bootstrap import difference
    from llama_recipes_local.commands.evaluate.results import read_result

    def pooled(runs: Sequence[tuple[str, int]]) -> Measure:
        measures = [
            next(m for m in read_result(result_file(work, *run)).measures() if m.name == "gleu")
            for run in runs
        ]
        first = measures[0]
        parts = np.sum([each.of_keys(first.keys).parts for each in measures], axis=0)
        return Measure(first.name, first.keys, parts, first.value)

    found = difference(*(pooled(runs) for runs in zip(*pairs, strict=True)))
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p}


def table(found: Found, apart: Sequence[dict[str, Any]]) -> str:
    """Return both tables in Markdown."""
    lines = [
        "| path | seed | validation loss | evaluated | GLEU | s |",
        "|---|---|---|---|---|---|",
    ]
    for (path, seed), run in sorted(found.items()):
        if "error" in run:
            lines.append(f"| {path} | {seed} | {run['error']} |")
            continue
        values = (run["validation"][-1], run["loss"]["value"], run["gleu"]["value"])
        shown = " | ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {path} | {seed} | {shown} | {run['seconds']:.0f} |")
    lines += ["", "| | training | validation | final, mean | GLEU, 95% interval |"]
    lines += ["|---|---|---|---|---|"]
    for each in apart:
        gleu = f"at most {each['largest_gleu']:.4f} apart"
        if "gleu" in each:
            of = each["gleu"]
            gleu = f"{of['value']:+.4f} ({of['low']:+.4f} to {of['high']:+.4f}), p {of['p']:.2f}"
        shown = f"{each['training']:.4f} | {each['validation']:.4f}"
        shown += f" | {each['mean_final_validation']:+.4f} ({each['share_final_validation']:+.2%})"
        lines.append(f"| {each['between']} | {shown} | {gleu} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
