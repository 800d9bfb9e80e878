"""Trains with TRL's ``SFTTrainer`` and saves the adapter or the model."""

import contextlib
import json
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl import SFTConfig, SFTTrainer, get_peft_config

import datasets
from llama_recipes_local import parallel
from llama_recipes_local.closing import closing_text
from llama_recipes_local.commands.sft.sft_custody import finish_sft_custody, sft_custody_of
from llama_recipes_local.commands.sft.sft_run import CONFIGURATION_FILE, SftRun
from llama_recipes_local.commands.sft.trl_dataset import files_of, load
from llama_recipes_local.commands.sft.trl_display import DisplayCallback
from llama_recipes_local.commands.sft.trl_model import cast_trainable, load_model
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.fields import dtype_of
from llama_recipes_local.model_checkpointing.adapter_card import (
    CARD,
    without_folders,
    write_adapter_card,
)
from llama_recipes_local.model_checkpointing.whole_model import restore_use_cache
from llama_recipes_local.model_folders.auxiliary_files import copy_tokenizer
from llama_recipes_local.model_folders.base_record import record_base
from llama_recipes_local.program import command
from llama_recipes_local.reports.run_page import report_finished_run
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import PACKAGES
from llama_recipes_local.screen import encodable
from llama_recipes_local.storage.publishing import follow_umask, write_text
from llama_recipes_local.training.loggers import JsonLines


def load_data(run: SftRun) -> dict[str, datasets.Dataset]:
    """Return the rows of each part, "train" and "eval".

    Raises:
        UsageError: if records cannot be used, or there is nothing to train on.
    """
    return load(run.run, run.parts, run.tokenizer)


def train(run: SftRun, data: dict[str, datasets.Dataset]) -> None:
    """Train, and save the adapter or the model in ``output_dir``.

    Raises:
        TrainingError: if a loss is not finite.
    """
    output, first = Path(run.training.output_dir), parallel.is_rank_zero()
    if first:
        output.mkdir(parents=True, exist_ok=True)
        save_configuration(run, output / CONFIGURATION_FILE)
        if run.run.data is not None:
            run.run.data.save(output)
    with sft_custody_of(run) if first else nullcontext() as custody:
        set_seed(run.training.seed)  # TRL before 1.16 initialises the adapter before it does so
        shows = DisplayCallback(live=not run.training.disable_tqdm)
        trainer = _make_trainer(run, data, [MetricsLog(output), shows])
        _print_model(trainer.model, trainer.args)
        with _without_recast(trainer.model, trainer.args), shows.display:
            result = trainer.train()
        trainer.save_model()
        trainer.save_state()
        if first:
            if run.model.use_peft:
                _write_card(run, trainer.state, output)
            follow_umask(output)
            report_finished_run(output)
        if custody is not None:
            finish_sft_custody(custody, run, output)
    _report(run.run, trainer, result.metrics["train_runtime"])


def _make_trainer(
    run: SftRun, data: dict[str, datasets.Dataset], callbacks: list[TrainerCallback]
) -> "Trainer":
    trainer = Trainer(
        run=run,
        model=load_model(run.model, run.training.device),
        args=run.training,
        train_dataset=data["train"],
        eval_dataset=data.get("eval"),
        processing_class=run.tokenizer,
        peft_config=get_peft_config(run.model),
        callbacks=callbacks,
    )
    for printing in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printing)
    if run.model.use_peft:
        cast_trainable(trainer.model, dtype_of(run.local.adapter_dtype))
    return trainer


def save_configuration(run: SftRun, path: Path) -> None:
    """Write all settings of the run and the versions of its packages as JSON."""
    described = {
        "flags": {flag.name: " ".join(flag.values) or "True" for flag in run.flags},
        "data": files_of(run.dataset, run.parts),
        "local_dataset": asdict(run.dataset),
        "local": asdict(run.local),
        "model": asdict(run.model),
        "training": run.training.to_dict(),
        "versions": {name: import_module(name).__version__ for name in (*PACKAGES, "trl")},
    }
    text = json.dumps(described, indent=2, ensure_ascii=False, default=str)
    write_text(path, text + "\n")


class Trainer(SFTTrainer):
    """TRL's trainer, which saves what ``finetuning.py`` does next to the weights.

    TRL's model card, which links to the Hub, and PEFT's, which is empty, are left out.
    """

    def __init__(self, run: SftRun, **options: Any) -> None:  # TRL's own
        """Take a run, and what TRL's trainer takes."""
        super().__init__(**options)
        self._run = run

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Write nothing; ``sft_config.json`` records the settings."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter or the model, at the end and in checkpoints."""
        super().save_model(output_dir, _internal_call)
        if not parallel.is_rank_zero():
            return
        folder = Path(output_dir or self.args.output_dir)
        base = Path(self._run.model.model_name_or_path)
        (folder / CARD).unlink(missing_ok=True)
        if not self._run.changes_tokenizer:
            copy_tokenizer(base, folder)
        if self._run.model.use_peft:
            record_base(folder, base)
        else:
            restore_use_cache(folder, base)


def _write_card(run: SftRun, state: TrainerState, output: Path) -> None:
    run.run.results["eval_loss_after"] = _logged(state, "eval_loss")
    command = without_folders(["python", "sft.py", *run.words])
    write_adapter_card(run.run, output, command, CONFIGURATION_FILE)


class MetricsLog(TrainerCallback):
    """Writes what is logged to ``metrics.jsonl``, and stops a run whose loss is not finite."""

    def __init__(self, output: Path) -> None:
        self._lines = JsonLines(output) if parallel.is_rank_zero() else None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # as TrainerCallback has it
    ) -> None:
        """Write the metrics; TRL calls this on every rank with the metrics over all ranks."""
        numbers = kwargs["logs"]
        loss = numbers.get("loss", 0.0)
        if self._lines is not None and "train_runtime" not in numbers:
            kind = "eval" if "eval_loss" in numbers else "train"
            self._lines.log(kind, state.global_step, numbers)
        if not math.isfinite(loss):
            raise TrainingError(
                f"non-finite loss at step {state.global_step}: {loss}; training stopped, nothing "
                "more is saved\n   fix: lower --learning_rate, or inspect the data with "
                f"`{command('inspect')}`"
            )

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # as TrainerCallback has it
    ) -> None:
        """Write the metrics that are still buffered."""
        if self._lines is not None:
            self._lines.close()


def _without_recast(model: nn.Module, args: SFTConfig) -> AbstractContextManager[None]:
    """Disable PEFT's cast of each layer's input to float32, which autocast would undo."""
    mixed = args.bf16 or args.fp16
    if isinstance(model, PeftModel) and mixed:
        casting: AbstractContextManager[None] = disable_input_dtype_casting(model)
        return casting
    return contextlib.nullcontext()


def _print_model(model: nn.Module, args: SFTConfig) -> None:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dtypes = ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in trainable}))
    print(f"--> trainable: {sum(p.numel() for p in trainable):,} parameters in {dtypes}")
    rows, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    print(
        f"--> global batch: {rows * accumulated * args.world_size} rows "
        f"({rows} per micro-batch, {accumulated} micro-batches, {args.world_size} ranks)"
    )


def _report(run: Run, trainer: Trainer, seconds: float) -> None:
    """Print speed and memory, and what was trained and where it is."""
    tokens = _logged(trainer.state, "num_tokens")
    if tokens is not None:
        print(f"--> {tokens:,.0f} tokens in {seconds:.1f} s: {tokens / seconds:,.0f} tok/s")
    if torch.cuda.is_available() and not trainer.args.use_cpu:
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"--> peak memory of rank 0: {peak:.1f} GiB")
    run.results |= {
        "trained": True,
        "other_batches": False,
        "eval_loss_after": _logged(trainer.state, "eval_loss"),
        "steps": trainer.state.global_step,
        "tokens": None if tokens is None else int(tokens),
        "seconds": seconds,
    }
    print(f"\n{encodable(closing_text(run), sys.stdout)}")


def _logged(state: TrainerState, name: str) -> float | None:
    """Return a number that was logged last; None if it never was."""
    return next((entry[name] for entry in reversed(state.log_history) if name in entry), None)
