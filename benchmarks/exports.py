"""Exports models as GGUF in each type, and compares what llama.cpp computes with transformers.

    python benchmarks/exports.py --models DIR... --work DIR [--gguf FILE] [--out results/FILE.json]

llama.cpp is that of the wheel ``xllamacpp``. With ``--gguf`` that file is converted to float32 and
exported again as Q4_1, and their tensors are compared. Texts are those that the tests of the
default model's tokenizer have: English, Chinese, code, numbers, white space, emoji.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from llama_cpp import LlamaCpp
from transformers import AutoModelForCausalLM

from llama_recipes_local.gguf_files.gguf_choices import TYPES
from llama_recipes_local.models import AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ROOT / "tests" / "commands" / "prepare" / "smollm2" / "llama_cpp_ids.jsonl"
PROMPTS = (
    "She go to school yesterday. The corrected sentence is:",
    "def fibonacci(n):\n    ",
    "The capital of France is",
    "今天天气",
    "1, 2, 3, 4,",
)
NEW_TOKENS = 16
LONG = 96
"""Tokens of each text whose logits are compared."""
PACKAGES = ("torch", "transformers", "gguf", "xllamacpp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the exports")
    parser.add_argument("--gguf", type=Path, help="a file to convert and to export again")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }
    report["models"] = {
        model.name: [compared(model, args.work, kind) for kind in args.types]
        for model in args.models
    }
    if args.gguf:
        report["again"] = again(args.gguf, args.work)
    for name, types in report["models"].items():
        print(name, *table(types), sep="\n")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


def compared(model: Path, work: Path, kind: str) -> dict[str, Any]:
    """Export a model in one type, and compare tokens, logits and greedy text."""
    out = work / kind
    shutil.rmtree(out, ignore_errors=True)
    words = ["--model_name", str(model), "--out", str(out), "--type", kind]
    seconds, peak = run("export", *words, "--accept", "outputs")
    certificate = json.loads((out / "certificate.json").read_text())["outputs"]
    del certificate["answers"]
    path = next(out.glob("*.gguf"))
    with LlamaCpp(path) as exported:
        found = tokens_and_logits(model, exported) | greedy(model, exported)
    size = path.stat().st_size
    shutil.rmtree(out)
    return {"type": kind, "bytes": size, "seconds": seconds, "peak_mb": peak, **found} | {
        "certificate": certificate
    }


def tokens_and_logits(folder: Path, exported: LlamaCpp) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = [json.loads(line)["text"] for line in TEXTS.read_text("utf-8").splitlines()]
    equal = sum(exported.tokens(text) == tokenizer(text)["input_ids"] for text in texts)
    difference, divergence, same, count = 0.0, 0.0, 0, 0
    for start in range(0, 40, 10):
        ids = tokenizer("\n".join(texts[start : start + 10]))["input_ids"][:LONG]
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0]
        got = torch.from_numpy(exported.logits(ids))
        difference = max(difference, float((got - expected).abs().max()))
        first, second = expected.log_softmax(-1), got.log_softmax(-1)
        divergence += float((first.exp() * (first - second)).sum())
        same += int((expected.argmax(-1) == got.argmax(-1)).sum())
        count += len(ids)
    return {
        "texts": len(texts),
        "texts_with_equal_tokens": equal,
        "largest_logit_difference": difference,
        "kl_divergence": divergence / count,
        "same_likeliest_token": same / count,
    }


def greedy(folder: Path, exported: LlamaCpp) -> dict[str, Any]:
    """Return how many greedy continuations of the prompts are those of transformers in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    equal = 0
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
        )
        equal += exported.greedy(ids, NEW_TOKENS) == made[0, len(ids) :].tolist()
    return {"prompts": len(PROMPTS), "equal_greedy_texts": equal}


def again(path: Path, work: Path) -> dict[str, Any]:
    """Convert a GGUF file to float32 and export it as Q4_1; compare the tensors' bytes."""
    from gguf import GGUFReader

    folder, out = work / "converted", work / "again"
    for each in (folder, out):
        shutil.rmtree(each, ignore_errors=True)
    run("convert", str(path), "--out", str(folder), "--dtype", "float32")
    run("export", "--model_name", str(folder), "--out", str(out), "--type", "q4_1")
    first = {each.name: each for each in GGUFReader(path).tensors}
    second = {each.name: each for each in GGUFReader(next(out.glob("*.gguf"))).tensors}
    equal = [
        name
        for name, each in first.items()
        if name in second
        and each.tensor_type == second[name].tensor_type
        and bytes(each.data.tobytes()) == bytes(second[name].data.tobytes())
    ]
    return {"tensors": len(first), "of_the_export": len(second), "equal_to_the_byte": len(equal)}


def run(*words: str) -> tuple[float, int]:
    """Run a command of the package; return its seconds and peak memory in MB."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "llama_recipes_local", *words], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(words)}")
    return round(time.monotonic() - began, 1), usage.ru_maxrss // 1024


def table(types: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| type | MB | same tokens | largest logit difference | KL | KL in the certificate "
        "| same likeliest | greedy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in types:
        lines.append(
            f"| {each['type']} | {each['bytes'] / 1e6:.0f} "
            f"| {each['texts_with_equal_tokens']} of {each['texts']} "
            f"| {each['largest_logit_difference']:.3f} | {each['kl_divergence']:.6f} "
            f"| {each['certificate']['kl_divergence'][0]:.6f} "
            f"| {each['same_likeliest_token']:.1%} "
            f"| {each['equal_greedy_texts']} of {each['prompts']} |"
        )
    return lines


if __name__ == "__main__":
    main()
