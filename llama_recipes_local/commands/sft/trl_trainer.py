"""Trains with TRL's ``SFTTrainer``, and saves what came of it."""

import contextlib
import json
import math
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import TrainerCallback, set_seed
from trl import SFTTrainer, get_peft_config

import datasets
from llama_recipes_local import parallel
from llama_recipes_local.commands.sft.sft_run import SftRun
from llama_recipes_local.commands.sft.trl_dataset import load, trained
from llama_recipes_local.commands.sft.trl_model import cast_trained, load_model
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.fields import DTYPES
from llama_recipes_local.model_folders import ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.weight_files import SINGLE
from llama_recipes_local.run.record import PACKAGES
from llama_recipes_local.storage.publishing import write_text
from llama_recipes_local.training.loggers import JsonLines

CONFIGURATION_FILE = "sft_config.json"


def load_data(run: SftRun) -> dict[str, datasets.Dataset]:
    """Return the rows by what they are for.

    Raises:
        UsageError: at the first record that cannot be used.
    """
    data = {name: load(part, name, run.local.data_cache) for name, part in run.parts.items()}
    print(f"--> loss: {trained(run.parts['train'], run.training)}")
    return data


def train(run: SftRun, data: dict[str, datasets.Dataset]) -> None:
    """Train, and save the adapter or the model in ``output_dir``.

    Raises:
        TrainingError: if the loss is not finite.
    """
    output = Path(run.training.output_dir)
    if parallel.is_rank_zero():
        output.mkdir(parents=True, exist_ok=True)
        save_configuration(run, output / CONFIGURATION_FILE)
    set_seed(run.training.seed)  # TRL before 1.16 draws the adapter before it does so
    trainer = Trainer(
        model=load_model(run.model, run.training.device),
        args=run.training,
        train_dataset=data["train"],
        eval_dataset=data.get("eval"),
        processing_class=run.tokenizer,
        peft_config=get_peft_config(run.model),
        callbacks=[Watch(output)],
    )
    model = trainer.model
    if run.model.use_peft:
        cast_trained(model, DTYPES[run.local.adapter_dtype])
    _tell_model(model, trainer.args)
    with _computing(model, trainer.args):
        result = trainer.train()
    trainer.save_model()
    trainer.save_state()
    _report(trainer, result.metrics["train_runtime"], output)


def save_configuration(run: SftRun, path: Path) -> None:
    """Write every setting of the run as JSON, with the versions of what it runs on."""
    described = {
        "data": {name: str(part) for name, part in run.parts.items()},
        "local": asdict(run.local),
        "model": asdict(run.model),
        "training": run.training.to_dict(),
        "versions": {name: import_module(name).__version__ for name in (*PACKAGES, "trl")},
    }
    text = json.dumps(described, indent=2, ensure_ascii=False, default=str)
    write_text(path, text + "\n")


class Trainer(SFTTrainer):
    """TRL's trainer without its model card, which leads to the Hub where the model is not."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing; ``sft_config.json`` tells how the model was made."""


class Watch(TrainerCallback):
    """Writes every logged number to ``metrics.jsonl``, and ends a run whose loss is not finite."""

    def __init__(self, output: Path) -> None:
        self._lines = JsonLines(output) if parallel.is_rank_zero() else None

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what is logged; TRL calls this on every rank with the numbers of all."""
        numbers = kwargs["logs"]
        loss = numbers.get("loss", 0.0)
        if self._lines is not None and "train_runtime" not in numbers:
            kind = "eval" if "eval_loss" in numbers else "train"
            self._lines.log(kind, state.global_step, numbers)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss at step {state.global_step} is {loss}: training ends here, and nothing "
                "more is saved\n   fix: lower --learning_rate, or look into the data with "
                "`llama-recipes-local inspect`"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is left."""
        if self._lines is not None:
            self._lines.close()


def _computing(model: Any, args: Any) -> AbstractContextManager[None]:
    """Spare PEFT its cast of each layer's input to float32 where autocast undoes it at once."""
    mixed = args.bf16 or args.fp16
    if isinstance(model, PeftModel) and mixed:
        casting: AbstractContextManager[None] = disable_input_dtype_casting(model)
        return casting
    return contextlib.nullcontext()


def _tell_model(model: Any, args: Any) -> None:
    moved = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dtypes = ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in moved}))
    print(f"--> trained: {sum(p.numel() for p in moved):,} parameters in {dtypes}")
    rows, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    print(
        f"--> a step: {rows * accumulated * args.world_size} rows "
        f"({rows} at a time, {accumulated} times, on {args.world_size} ranks)"
    )


def _report(trainer: Trainer, seconds: float, output: Path) -> None:
    """Print what the run came to."""
    logged = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    if logged:
        print(f"--> {logged[-1]:,.0f} tokens in {seconds:.1f} s: {logged[-1] / seconds:,.0f} tok/s")
    if torch.cuda.is_available() and not trainer.args.use_cpu:
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"--> peak memory of rank 0: {peak:.1f} GiB")
    for name in (ADAPTER_WEIGHTS, SINGLE):
        if (output / name).is_file():
            print(f"saved: {(output / name).resolve()}")
