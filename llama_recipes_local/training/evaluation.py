"""Loss and perplexity on the validation set, by label tokens over all ranks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.parallel import all_reduce_sum, compute_device
from llama_recipes_local.training import batches
from llama_recipes_local.training.loggers import WandbRun


def perplexity(loss: float) -> float:
    """Return e to the loss; infinity where that is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Evaluated:
    """A validation.

    Attributes:
        loss: mean over the label tokens of all ranks.
        label_tokens: how many those are: two validations of other batches differ in it.
        step_losses: of each batch of this rank, where ``save_metrics`` asks for them.
    """

    loss: float
    label_tokens: int
    step_losses: list[float]


def evaluation(
    model: nn.Module,
    train_config: configs.train_config,
    eval_dataloader: Iterable[batches.Batch],
    local_rank: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    wandb_run: WandbRun | None = None,
) -> tuple[float, float, list[float], list[float]]:
    """Evaluate the model, as upstream's function with its arguments and results.

    Args:
        model: the model; it is left in evaluation mode.
        train_config: its ``max_eval_step`` limits the number of batches, 0 means all.
        eval_dataloader: batches with ``labels``.
        local_rank: not used; the ranks are the process group's.
        tokenizer: not used; nothing is decoded.
        wandb_run: a Weights & Biases run to log to, or None.

    Returns:
        Perplexity and mean loss over the label tokens of all ranks; then the loss and perplexity of
        each batch of this rank, where ``save_metrics`` asks for them.

    Raises:
        ValueError: if the validation set has no label tokens.
    """
    found = evaluate(model, train_config, eval_dataloader)
    ppl = perplexity(found.loss)
    if wandb_run is not None:
        wandb_run.log({"eval/perplexity": ppl, "eval/loss": found.loss}, commit=False)
    return ppl, found.loss, found.step_losses, [perplexity(loss) for loss in found.step_losses]


@torch.no_grad()
def evaluate(
    model: nn.Module, train_config: configs.train_config, eval_dataloader: Iterable[batches.Batch]
) -> Evaluated:
    """Evaluate the model; see ``evaluation`` for the arguments and what it raises."""
    model.eval()
    device = compute_device(model)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    label_tokens = torch.zeros((), dtype=torch.float64, device=device)
    step_losses: list[float] = []
    with compute_context(model, train_config):
        for step, batch in enumerate(eval_dataloader):
            if train_config.max_eval_step and step >= train_config.max_eval_step:
                break
            count = batches.label_tokens(batch)
            loss = model(**batches.prepare(batch, device), num_items_in_batch=1).loss
            loss_sum += loss
            label_tokens += count
            if train_config.save_metrics and count:
                step_losses.append(float(loss) / count)
    total = all_reduce_sum(torch.stack([loss_sum, label_tokens])).tolist()
    if not total[1]:
        raise ValueError("the validation set has no label tokens")
    return Evaluated(total[0] / total[1], int(total[1]), step_losses)
