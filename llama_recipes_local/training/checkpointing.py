"""The checkpoints of a training run: what goes into one, and how a run resumes from it.

Everything that a resumed run needs is a ``Stateful`` part with a name. The model and the optimiser
are handled apart from these: their tensors are sharded, and loaded in place.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from transformers import PreTrainedConfig

from llama_recipes_local import configs, parallel
from llama_recipes_local.checkpoints import layout, model_state, retention, rng_state, selection
from llama_recipes_local.checkpoints.identity import check_identity, identity
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.checkpoints.writing import Content, Writer
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.model_checkpointing.saved_adapter import adapter_state, write_adapter
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import describe


@dataclass(frozen=True)
class Resumed:
    """Where a run was resumed from.

    Attributes:
        seconds: what training took up to the checkpoint.
        same_folder: whether it is in this run's own folder, where the earlier run's logs are.
        lr: the learning rate of the first group of parameters that it was saved with.
    """

    seconds: float
    same_folder: bool
    lr: float


class CheckpointManager:
    """Saves and loads the checkpoints of one run; all ranks call its methods together."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        states: Mapping[str, Stateful],
        train_config: configs.train_config,
        run: Run | None,
    ) -> None:
        """Keep what checkpoints are made from.

        Args:
            model: the trained model, sharded or not, not wrapped in DistributedDataParallel.
            optimizer: its optimiser.
            states: all else that a run resumes, by its key in ``trainer.json``; loaded in order.
            train_config: where, how many and how to save, and what to resume from.
            run: the run to describe in each checkpoint; None in a script.
        """
        self.output = Path(train_config.output_dir)
        self.writer = Writer(self.output, train_config.save_total_limit, train_config.async_save)
        self._model = model
        self._optimizer = optimizer
        self._states = states
        self._config = train_config
        self._run = run
        self._saved_at = 0

    def load(self) -> Resumed | None:
        """Load the checkpoint that ``resume_from_checkpoint`` names; return None if there is none.

        Raises:
            TrainingError: if the checkpoint is corrupt, or of another model, optimiser or data.
        """
        if parallel.is_rank_zero():
            retention.remove_leftovers(self.output)
        began = time.perf_counter()
        folder = selection.select(self._config)
        if folder is None:
            if parallel.is_rank_zero() and self._config.resume_from_checkpoint:
                retention.set_aside_newer(self.output, -1)
            return None
        verified = time.perf_counter()
        if self._run is not None and self._run.data is not None:
            check_identity(self._run, folder)  # "auto" may have skipped the one that was compared
        manifest = layout.read_manifest(folder)
        step = manifest.step
        try:
            saved = layout.read_json(folder / layout.TRAINER)
            self._load(folder, saved, {folder / name for name in manifest.files})
            _load_rng_state(folder, saved["ranks"], self._config.seed + step)
            seconds: float = saved["seconds"]
            lr: float = saved["optimizer"]["groups"][0]["lr"]
        except (TrainingError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a library makes of a value that it does not expect
            raise CorruptCheckpointError(f"{folder} cannot be resumed from: {error!r}") from error
        same_folder = selection.is_in(self.output, folder)
        self._saved_at = step if same_folder else 0
        if parallel.is_rank_zero() and same_folder:
            retention.set_aside_newer(self.output, step)
            # a kill may have left one too many
            retention.remove_surplus(self.output, self._config.save_total_limit, keep=folder)
        print(
            f"--> resumed at step {step} from {folder.resolve()}: verified in "
            f"{verified - began:.2f} s, loaded in {time.perf_counter() - verified:.2f} s"
        )
        return Resumed(seconds, same_folder, lr)

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint of a step was saved, or resumed from."""
        return step == self._saved_at

    def newest(self) -> Path | None:
        """Return the folder of the last checkpoint that was saved, or resumed from; or None."""
        folder = self.folder_of(self._saved_at)
        return folder if self._saved_at and folder.is_dir() else None

    def save(self, step: int, validation: tuple[float, int | None] | None, seconds: float) -> None:
        """Write a checkpoint, or start to write it; see ``Writer.save``.

        Args:
            step: optimiser steps done.
            validation: loss and label tokens of a validation after this very step, if there was
                one.
            seconds: what training took so far.

        Raises:
            SavingError: if it cannot be written, or the one before could not; on all ranks.
        """
        self.writer.save(self._content(step, validation, seconds))
        self._saved_at = step

    def move_to(self, output: Path) -> None:
        """Write all later checkpoints into another folder, because this run's own has been lost.

        A checkpoint that is being written is abandoned: its path may be another folder's by now.
        """
        self.writer.give_up()
        self.output = self.writer.output = output
        self.writer.limit = 0
        if parallel.is_rank_zero():
            output.mkdir(parents=True, exist_ok=True)

    def folder_of(self, step: int) -> Path:
        """Return the absolute path of a step's checkpoint."""
        return layout.folder_of(self.output, step).resolve()

    def _load(self, folder: Path, saved: dict[str, Any], listed: set[Path]) -> None:
        model, optimizer, values = self._model, self._optimizer, saved["optimizer"]
        model_state.check_complete(model, optimizer, values)
        model_state.load_optimizer(
            model, optimizer, folder / layout.OPTIMIZER, values["numbers"], listed
        )
        # a run's own settings are the flags', which were compared with the checkpoint's
        if self._run is None and "schedule" not in self._config.resume_despite:
            model_state.load_param_groups(self._optimizer, values["groups"])
        model_state.load_model(model, folder / layout.WEIGHTS, listed)
        for name, part in self._states.items():
            part.load_state_dict(saved[name])

    def _content(
        self, step: int, validation: tuple[float, int | None] | None, seconds: float
    ) -> Content:
        """Return this rank's part of a checkpoint."""
        model, optimizer = self._model, self._optimizer
        parallel.reshard(model)
        values = {f"{layout.RANDOM}/rank-{parallel.rank()}.json": rng_state.state_dict()}
        if parallel.is_rank_zero():
            values[layout.TRAINER] = {
                **{name: part.state_dict() for name, part in self._states.items()},
                "optimizer": model_state.optimizer_values(model, optimizer),
                "seconds": seconds,
                "ranks": parallel.world_size(),
            }
            values |= self._descriptions()
        loss, tokens = validation or (None, None)
        return Content(
            step=step,
            validation_loss=loss,
            validation_tokens=tokens,
            tensors={
                layout.WEIGHTS: model_state.model_tensors(model),
                layout.OPTIMIZER: model_state.optimizer_tensors(model, optimizer),
            },
            values=values,
            extra=_adapter_files(model) if self._config.use_peft else None,
        )

    def _descriptions(self) -> dict[str, Any]:
        """Return the files that describe the run and its model, by their paths."""
        files: dict[str, Any] = {}
        if self._run is not None and self._run.data is not None:
            files |= {layout.RUN_CONFIG: describe(self._run), layout.IDENTITY: identity(self._run)}
        config = getattr(self._model, "config", None)
        if isinstance(config, PreTrainedConfig):
            files[layout.MODEL_CONFIG] = json.loads(config.to_json_string())
        return files


def _load_rng_state(folder: Path, ranks: int, seed: int) -> None:
    """Load this rank's RNG state; if the number of ranks has changed, seed it instead."""
    if parallel.world_size() != ranks:
        print(
            f"--> saved on {ranks} rank(s), resumed on {parallel.world_size()}: same samples, "
            "new RNG state (dropout differs)"
        )
        rng_state.seed_all(seed + parallel.rank())
        return
    path = folder / layout.RANDOM / f"rank-{parallel.rank()}.json"
    rng_state.load_state_dict(layout.read_json(path))


def _adapter_files(model: nn.Module) -> Callable[[Path], None] | None:
    """Gather the adapter from all ranks; return what writes its files, on the first rank."""
    adapter = adapter_state(model)
    return (
        (lambda folder: write_adapter(model, adapter, folder)) if parallel.is_rank_zero() else None
    )
