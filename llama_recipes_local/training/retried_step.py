"""Computes a step again, keeping less of each layer, if it ran out of memory."""

import torch

from llama_recipes_local import parallel
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.run import Run
from llama_recipes_local.training import batches, trial
from llama_recipes_local.training.out_of_memory import figures, told_apart
from llama_recipes_local.training.stepping import Figures, Stepper


def take(
    run: Run | None,
    stepper: Stepper,
    micro_batches: list[batches.Batch],
    label_tokens: int,
    number: int,
) -> Figures:
    """Compute a step; if memory runs out, compute it again and keep less of each layer.

    With several ranks this is not possible: the others wait in the middle of their step, so this
    one has to end.

    Args:
        run: the run that ``finetuning.main`` is in; None has nothing to step down.
        stepper: computes the step.
        micro_batches: this rank's.
        label_tokens: label tokens of the global batch.
        number: number of the step, from 1.

    Raises:
        torch.OutOfMemoryError: if nothing is left that needs less.
    """
    alone = parallel.world_size() == 1
    before = rng_state.state_dict() if alone else {}
    while True:
        try:
            with told_apart():
                return stepper.step(micro_batches, label_tokens)
        except torch.OutOfMemoryError as error:
            if run is None or not alone or stepper.updating:
                raise
            said = str(error)
        # the error is gone, and the tensors of its frames with it
        trial.free(stepper)
        rng_state.load_state_dict(before)
        print(f"--> Out of memory in step {number}: {figures(said)}")
        changed = trial.keep_less(run, stepper)
        if not changed:
            raise torch.OutOfMemoryError(said)
        print(f"--> Stepping down, and computing the step again: {changed}")
