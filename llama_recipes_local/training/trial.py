"""A trial before the first step, on the longest micro-batches, to see the peak of memory early.

Its gradients are dropped, and it changes no weight and no RNG state. No rank waits for another
during the trial. If memory runs out on any rank, all ranks reduce their needs together and try
again.
"""

import gc
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from llama_recipes_local import parallel
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.configs.training import RECOMPUTING
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.optimization.parameter_groups import trained_parameters
from llama_recipes_local.parallel.peers import ranks_in_words
from llama_recipes_local.planning.flags import words
from llama_recipes_local.planning.memory import MOMENTS
from llama_recipes_local.policies.activation_policy import recomputation_flag
from llama_recipes_local.policies.lowering import lower_policy
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import CONFIGURATION_FILE, save_description
from llama_recipes_local.training import batches
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.out_of_memory import figures, told_apart
from llama_recipes_local.training.stepping import Stepper, unwrapped


def is_due(run: Run, stepper: Stepper) -> bool:
    """Return whether a run has a trial: with fast kernels on CUDA, or with automatic choices."""
    fast = run.train.use_fast_kernels and stepper.device.type == "cuda"
    return bool(fast or run.automatic or run.chosen)


def try_longest(run: Run, stepper: Stepper, data: DataIterator) -> None:
    """Try a step's longest micro-batches, and step down until they fit; all ranks call this.

    Raises:
        torch.OutOfMemoryError: if they do not, and nothing is left that no flag names.
        PeerEndedError: if this happens on another rank.
    """
    while (batch := data.longest()) is not None:
        said = _try(run, stepper, batch, min(2, data.accumulation_steps))
        ranks = _ranks_with(bool(said))
        if not ranks:
            return
        where = f" on {ranks_in_words(ranks)}" if parallel.world_size() > 1 else ""
        print(
            f"--> Out of memory in a trial of the longest rows, {batches.tokens(batch):,} tokens"
            f"{where}{': ' + figures(said) if said else ''}"
        )
        changed = step_down(run, stepper, data)
        if not changed and said:
            raise torch.OutOfMemoryError(said)
        if not changed:
            raise parallel.PeerEndedError(TrainingError.EXIT_CODE)
        print(f"--> Stepping down, before the first step: {changed}")


def step_down(run: Run, stepper: Stepper, data: DataIterator) -> str:
    """Reduce a run's memory where no flag decides; return the new flags, "" if nothing is left.

    First less is kept of each layer, then micro-batches are halved at the same global batch.
    """
    return keep_less(run, stepper) or _smaller_micro_batches(run, data)


def keep_less(run: Run, stepper: Stepper) -> str:
    """Keep less of each layer unless a flag says what is kept; return the new flag, or ""."""
    policy = lower_policy(run, unwrapped(stepper.model))
    if not policy:
        return ""
    _record(run, {"activation_policy": policy, recomputation_flag(run): policy in RECOMPUTING})
    return f"--activation_policy {policy}"


def _record(run: Run, changed: dict[str, Any]) -> None:
    """Add the reduced settings to the run's flags, and write its settings again."""
    named = {flag: value for flag, value in run.flags.items() if _name(flag) not in changed}
    run.flags = named | changed
    run.chosen |= changed.keys()
    if parallel.is_rank_zero():
        save_description(run, Path(run.train.output_dir) / CONFIGURATION_FILE)


def _name(flag: str) -> str:
    return flag.rpartition(".")[2]


def _smaller_micro_batches(run: Run, data: DataIterator) -> str:
    train, rows = run.train, run.train.batch_size_training
    parts = next((n for n in range(2, rows + 1) if rows % n == 0), 0)
    if not (parts and data.can_split() and run.may_change("batch_size_training")):
        return ""
    data.split(parts)
    train.batch_size_training //= parts
    train.gradient_accumulation_steps *= parts
    names = ["batch_size_training", "gradient_accumulation_steps"]
    if train.batching_strategy == "padding":  # rows stay in their groups
        train.length_group_size = train.length_group_size or rows
        names.append("length_group_size")
    changed = {name: getattr(train, name) for name in names}
    _record(run, changed)
    return " ".join(words(changed))


def _try(run: Run, stepper: Stepper, batch: batches.Batch, count: int) -> str:
    """Compute gradients ``count`` times; return torch's message if memory runs out."""
    said = ""
    stepper.model.train()
    with rng_state.fork_rng():
        try:
            with told_apart(), parallel.computing_alone(stepper.model):
                _pass(run, stepper, [batch] * count)
        except torch.OutOfMemoryError as error:
            said = str(error)
    free(stepper)
    return said


def _pass(run: Run, stepper: Stepper, micro_batches: list[batches.Batch]) -> None:
    """Compute gradients while as much memory is taken as the optimiser's first step will take."""
    moments = [] if stepper.optimizer.state else _moments(run, stepper.optimizer)
    stepper.backward(micro_batches, sum(map(batches.label_tokens, micro_batches)))
    del moments


def _moments(run: Run, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    taken = []
    for parameter in trained_parameters(optimizer):
        own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        size = own.numel() * MOMENTS.get(run.fsdp.optimizer.lower(), 2 * own.element_size())
        taken.append(torch.empty(int(size), dtype=torch.uint8, device=own.device))
    return taken


def free(stepper: Stepper) -> None:
    """Drop the gradients, and what a failed backward pass left of its graph."""
    stepper.optimizer.zero_grad()
    gc.collect()
    if stepper.device.type == "cuda":
        torch.cuda.empty_cache()


def _ranks_with(flag: bool) -> list[int]:
    """Return the ranks on which a flag is set; all ranks call this together."""
    own = torch.zeros(parallel.world_size(), dtype=torch.int64)
    own[parallel.rank() if parallel.world_size() > 1 else 0] = int(flag)
    return parallel.all_reduce_sum(own).nonzero().flatten().tolist()
