"""Trains one cell of ``peers.py`` with one tool, in a process of its own.

python benchmarks/peers_cell.py CELL.json
"""

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_clock import Clock

ROOT = Path(__file__).resolve().parents[1]
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATE, ALPHA = 1e-4, 32


def main() -> None:
    cell = json.loads(Path(sys.argv[1]).read_text())
    Clock(Path(cell["out"]), cell["started"], cell["steps"])
    TOOLS[cell["tool"]](cell)


def train_ours(cell: dict[str, Any]) -> None:
    """Run ``finetuning.py`` with the cell's flags."""
    flags: dict[str, Any] = {
        "model_name": cell["model"],
        "dataset": "grammar_dataset",
        "context_length": cell["tokens"],
        "batch_size_training": cell["rows"],
        "gradient_accumulation_steps": cell["micro_batches"],
        "max_train_step": cell["steps"],
        "use_fast_kernels": True,
        "gradient_checkpointing": cell["recomputes"],
        "lr": RATE,
        "run_validation": False,
        "save_model": False,
        "output_dir": cell["output"],
        "overwrite_output_dir": True,
        "data_cache": cell["cache"],
        "data_root": ROOT,
    }
    if cell["rank"]:
        flags |= {"use_peft": True, "r": cell["rank"], "lora_alpha": ALPHA}
        flags |= {"target_modules": cell["targets"], "lora_dropout": cell["dropout"]}
    if cell["weights"] == "nf4":
        flags |= {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": True}
    if cell["weights"] == "fp8":
        flags["fp8"] = True
    words = [f"--{name}={','.join(v) if isinstance(v, list) else v}" for name, v in flags.items()]
    sys.argv = [str(ROOT / "finetuning.py"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def train_trl(cell: dict[str, Any]) -> None:
    """Train with TRL and liger-kernel."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantized = None
    if cell["weights"] == "nf4":
        quantized = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    elif cell["weights"] == "fp8":
        raise SystemExit("TRL has no switch for fp8")
    model = AutoModelForCausalLM.from_pretrained(
        cell["model"],
        dtype=torch.bfloat16,
        attn_implementation="sdpa",
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        quantization_config=quantized,
    )
    lora = None
    if cell["rank"]:
        lora = LoraConfig(
            r=cell["rank"],
            lora_alpha=ALPHA,
            lora_dropout=cell["dropout"],
            target_modules=targets(cell),
            task_type="CAUSAL_LM",
        )
    own = {
        "use_liger_kernel": torch.cuda.is_available(),
        "gradient_checkpointing": cell["recomputes"],
    }
    fit(cell, model, own, peft_config=lora)


def train_unsloth(cell: dict[str, Any]) -> None:
    """Train with Unsloth, whose own checkpointing keeps its inputs in host memory."""
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(Path(cell["cache"]) / "unsloth")
    from unsloth import FastLanguageModel  # isort: skip (it replaces parts of the others)
    import torch
    from transformers import default_data_collator

    recomputes = "unsloth" if cell["recomputes"] else False
    model, _ = FastLanguageModel.from_pretrained(
        cell["model"],
        max_seq_length=cell["tokens"],
        dtype=torch.bfloat16,
        load_in_4bit=cell["weights"] == "nf4",
        full_finetuning=not cell["rank"],
        use_gradient_checkpointing=recomputes,
        **({"load_in_fp8": True} if cell["weights"] == "fp8" else {}),
    )
    if cell["rank"]:
        model = FastLanguageModel.get_peft_model(
            model,
            r=cell["rank"],
            lora_alpha=ALPHA,
            lora_dropout=cell["dropout"],
            target_modules=targets(cell),
            use_gradient_checkpointing=recomputes,
        )
    fit(cell, model, {}, data_collator=default_data_collator)


def fit(cell: dict[str, Any], model: Any, own: dict[str, Any], **more: Any) -> None:
    """Train a model by TRL's trainer on the cell's rows.

    Args:
        cell: the cell.
        model: the model.
        own: settings of the tool.
        more: what else the trainer takes.
    """
    import torch
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(cell["model"], local_files_only=True)
    tokenizer.pad_token = tokenizer.eos_token
    config = SFTConfig(
        output_dir=cell["output"],
        per_device_train_batch_size=cell["rows"],
        gradient_accumulation_steps=cell["micro_batches"],
        max_steps=cell["steps"],
        learning_rate=RATE,
        max_length=cell["tokens"],
        max_grad_norm=0.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=1,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to=[],
        **own,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=packed_rows(Path(cell["data"])),
        processing_class=tokenizer,
        **more,
    )
    trainer.train()


def packed_rows(path: Path) -> Any:
    """Return the packed rows as a data set."""
    import numpy as np

    from datasets import Dataset

    with np.load(path) as rows:
        columns = {name: list(rows[name]) for name in ("input_ids", "labels")}
        columns["attention_mask"] = list(np.ones_like(rows["input_ids"]))
    return Dataset.from_dict(columns)


def targets(cell: dict[str, Any]) -> list[str]:
    """Return the projections that get an adapter."""
    return PROJECTIONS if cell["targets"] == "all-linear" else cell["targets"]


TOOLS: dict[str, Callable[[dict[str, Any]], None]] = {
    "ours": train_ours,
    "trl": train_trl,
    "unsloth": train_unsloth,
}


if __name__ == "__main__":
    main()
