"""What of a trainer goes into a checkpoint, and how a trainer goes on from one."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedConfig

from llama_recipes_local import parallel
from llama_recipes_local.checkpoints import layout, model_state, rng_state, selection
from llama_recipes_local.checkpoints.identity import identity
from llama_recipes_local.checkpoints.layout import DamagedError
from llama_recipes_local.checkpoints.writing import Content
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.model_checkpointing.checkpoint_handler import adapter_state, write_adapter
from llama_recipes_local.run import active_run
from llama_recipes_local.run.record import describe
from llama_recipes_local.training.stepping import unwrapped

if TYPE_CHECKING:
    from llama_recipes_local.training.loop import Trainer


def captured(trainer: "Trainer") -> Content:
    """Return what a checkpoint of a trainer holds; all ranks call this together."""
    model = unwrapped(trainer.model)
    parallel.reshard(model)
    values = {f"{layout.RANDOM}/rank-{parallel.rank()}.json": rng_state.state_dict()}
    if parallel.is_rank_zero():
        values |= {layout.TRAINER: _trainer_state(trainer, model)} | _described(model)
    return Content(
        step=trainer.state.step,
        validation_loss=trainer.last_validation_loss(),
        tensors={
            layout.WEIGHTS: model_state.model_tensors(model),
            layout.OPTIMIZER: model_state.optimizer_tensors(model, trainer.optimizer),
        },
        values=values,
        extra=_adapter_files(model) if trainer.config.use_peft else None,
    )


def restore(trainer: "Trainer", folder: Path) -> None:
    """Put a new trainer where the one was that wrote a checkpoint; all ranks call this together.

    Raises:
        TrainingError: if the checkpoint is not of this model, optimiser or data.
    """
    try:
        saved = json.loads((folder / layout.TRAINER).read_text("utf-8"))
        _restore_state(trainer, folder, saved)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder} cannot be gone on from: {error!r}") from error


def _trainer_state(trainer: "Trainer", model: nn.Module) -> dict[str, Any]:
    best = trainer.state.best_loss
    return {
        "state": asdict(trainer.state) | {"best_loss": best if math.isfinite(best) else None},
        "feed": trainer.feed.state_dict(),
        "history": trainer.history.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "stepper": trainer.stepper.state_dict(),
        "optimizer": model_state.optimizer_values(model, trainer.optimizer),
        "seconds": trainer.progress.seconds,
        "ranks": parallel.world_size(),
    }


def _restore_state(trainer: "Trainer", folder: Path, saved: dict[str, Any]) -> None:
    model = unwrapped(trainer.model)
    values = saved["optimizer"]
    model_state.restore_optimizer(model, trainer.optimizer, folder / layout.OPTIMIZER, values)
    model_state.restore_model(model, folder / layout.WEIGHTS)
    best = saved["state"].pop("best_loss")
    trainer.state = type(trainer.state)(**saved["state"])
    trainer.state.best_loss = math.inf if best is None else best
    trainer.history.load_state_dict(saved["history"])
    trainer.stepper.load_state_dict(saved["stepper"])
    if "schedule" in trainer.config.resume_despite:
        trainer.schedule.replay(saved["schedule"])
    else:
        model_state.restore_groups(trainer.optimizer, values["groups"])
        trainer.schedule.load_state_dict(saved["schedule"])
    trainer.progress.go_on_from(
        trainer.state.step,
        trainer.state.validated,
        saved["seconds"],
        selection.is_in(Path(trainer.config.output_dir), folder),
    )
    _restore_place(trainer, saved["feed"])
    _restore_random(folder, saved["ranks"], trainer.config.seed + trainer.state.step)


def _restore_place(trainer: "Trainer", saved: dict[str, Any]) -> None:
    """Go on in the data; where that is other data by request, with its first row."""
    try:
        trainer.feed.load_state_dict(saved, trainer.state.step)
    except ValueError as error:
        if not {"data", "tokenizer"} & set(trainer.config.resume_despite):
            raise TrainingError(f"the run cannot go on in this data: {error}") from error
        print(f"--> epoch {trainer.state.epoch + 1} begins anew with this data: {error}")


def _restore_random(folder: Path, ranks: int, seed: int) -> None:
    """Restore this rank's generators; on another number of ranks they begin anew."""
    if parallel.world_size() != ranks:
        print(
            f"--> saved on {ranks} rank(s), gone on from on {parallel.world_size()}: the samples "
            "are the same, dropout draws other numbers"
        )
        rng_state.seed_all(seed + parallel.rank())
        return
    path = folder / layout.RANDOM / f"rank-{parallel.rank()}.json"
    rng_state.load_state_dict(json.loads(path.read_text("utf-8")))


def _described(model: nn.Module) -> dict[str, Any]:
    """Return what tells of the run and its model, by file."""
    files: dict[str, Any] = {}
    active = active_run()
    if active is not None and active.data is not None:
        files |= {layout.RUN_CONFIG: describe(active), layout.IDENTITY: identity(active)}
    config: Any = getattr(model, "config", None)
    if isinstance(config, PreTrainedConfig):
        files[layout.MODEL_CONFIG] = json.loads(config.to_json_string())
    return files


def _adapter_files(model: nn.Module) -> Callable[[Path], None] | None:
    """Gather the adapter from all ranks; return what writes its files, on the first rank."""
    adapter = adapter_state(model)
    return (
        (lambda folder: write_adapter(model, adapter, folder)) if parallel.is_rank_zero() else None
    )
