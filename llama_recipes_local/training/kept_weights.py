"""The weights that a run keeps, for its answers after training: the best may not be the last."""

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor

from llama_recipes_local.checkpoints.model_state import model_tensors
from llama_recipes_local.training.parts import Parts


def keep_weights(parts: Parts) -> None:
    """Copy an adapter's tensors, this rank's share, to host memory if answers will ask for them.

    Those of a whole model would take as much memory as the model.
    """
    run, model = parts.run, parts.plain_model
    if run is not None and run.train.samples and isinstance(model, PeftModel):
        parts.kept = {name: own.to("cpu", copy=True) for name, own in _own(model).items()}


def load_kept_weights(parts: Parts) -> None:
    """Load the weights that the run keeps, or say that the last ones answer."""
    run, state = parts.run, parts.state
    if run is None or not run.train.samples or not parts.config.save_model:
        return
    if state.best_step in (-1, state.step):
        return
    if not parts.kept:  # of a whole model, or saved before the run was resumed
        print(f"--> the last step's weights answer; those of step {state.best_step} are saved")
        return
    for name, own in _own(parts.plain_model).items():
        own.copy_(parts.kept[name])


def _own(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return this rank's part of each tensor that training changes."""
    return {
        name: (each.to_local() if isinstance(each, DTensor) else each).detach()
        for name, each in model_tensors(model).items()
    }
