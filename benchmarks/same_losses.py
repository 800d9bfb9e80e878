"""Proof that a change leaves numbers alone: losses and weights of a fixed seed, to the bit.

Fine-tunes a tiny random Llama on the grammar data with LoRA, QLoRA and in full, on one process and
on two ranks, and writes down every training and validation loss, every gradient norm, and a hash of
what was saved. Run it before and after a change on the same machine; with ``--against`` it compares
and exits with 1 if a bit differs:

    python benchmarks/same_losses.py --out before.json
    python benchmarks/same_losses.py --out after.json --against before.json
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
METHODS = {
    "lora": ["--use_peft"],
    "qlora": ["--config", "qlora"],
    "full": [],
}
SHARED = ["--dataset", "grammar_dataset", "--num_epochs", "1", "--max_train_step", "8"]
SHARED += ["--context_length", "128", "--batch_size_training", "2", "--max_eval_step", "4"]
SHARED += ["--gradient_accumulation_steps", "2", "--lr", "1e-3", "--seed", "7"]


def make_model(folder: Path) -> None:
    """Save a two-layer Llama with random weights of a fixed seed and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<s>", "</s>", "<pad>"]
    letters = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(letters)}, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    bytes_alone.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", 0)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=bytes_alone, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def train(method: str, ranks: int, model: Path, output: Path, data: Path) -> dict[str, Any]:
    """Run finetuning.py in a process of its own, and return what it wrote down."""
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    flags = [*METHODS[method], *SHARED, "--model_name", str(model), "--output_dir", str(output)]
    flags += ["--data_root", str(data), "--data_cache", str(output.parent / "cache")]
    flags += ["--dist_checkpoint_root_folder", str(output)]
    if ranks > 1:
        flags += ["--enable_fsdp", "--checkpoint_type", "FULL_STATE_DICT"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    command = [*launch, str(PROJECT / "finetuning.py"), *flags]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(
            f"{method} on {ranks}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}"
        )
    return recorded(output)


def recorded(output: Path) -> dict[str, Any]:
    """Return the losses of a run as hexadecimal floats, and a hash of each file of weights."""
    lines = (output / "metrics.jsonl").read_text("utf-8").splitlines()
    numbers = [
        f"{name} {float(line[name]).hex()}"
        for line in map(json.loads, lines)
        for name in ("loss", "grad_norm", "perplexity")
        if name in line
    ]
    weights = sorted(output.rglob("*.safetensors"))
    if not numbers or not weights:
        raise SystemExit(f"{output} holds no losses or no weights")
    hashes = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in weights
    }
    return {"numbers": numbers, "weights": hashes}


def main() -> None:
    """Record all six runs, and compare them with a file of earlier ones if one is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="what an earlier call wrote")
    parser.add_argument("--data", type=Path, default=PROJECT, help="folder with datasets/grammar")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch) / "model")
        for method in METHODS:
            for ranks in (1, 2):
                name = f"{method}-{ranks}"
                output = Path(scratch) / name / "output"
                found[name] = train(method, ranks, Path(scratch) / "model", output, arguments.data)
                print(f"{name}: {len(found[name]['numbers'])} numbers", flush=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if arguments.against is None:
        return
    before = json.loads(arguments.against.read_text("utf-8"))
    different = [name for name in before | found if before.get(name) != found.get(name)]
    print(f"different: {', '.join(different)}" if different else "every bit is as it was")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
