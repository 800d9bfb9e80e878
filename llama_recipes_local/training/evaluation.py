"""Loss and perplexity on the validation set, by label tokens over all ranks."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.data.batch_sampler import GroupedBatchSampler
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.parallel import all_reduce_sum, compute_device
from llama_recipes_local.training import batches
from llama_recipes_local.training.loggers import WandbRun


@dataclass(frozen=True)
class Evaluated:
    """A validation.

    Attributes:
        loss: mean over the label tokens of all ranks.
        label_tokens: number of those tokens; validations on different batches differ in it.
        step_losses: of each batch of this rank, where ``save_metrics`` asks for them.
        by_source: of a mixture, the mean over the label tokens of each source, by name.
        scores: metrics of answers, where ``eval_generation_rows`` asks for them.
    """

    loss: float
    label_tokens: int
    step_losses: list[float]
    by_source: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def evaluation(
    model: nn.Module,
    train_config: configs.train_config,
    eval_dataloader: Iterable[batches.Batch],
    local_rank: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    wandb_run: WandbRun | None = None,
) -> tuple[float, float, list[float], list[float]]:
    """Evaluate the model, with upstream's arguments and results.

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
    model: nn.Module,
    train_config: configs.train_config,
    eval_dataloader: Iterable[batches.Batch],
    groups: GroupedBatchSampler | None = None,
) -> Evaluated:
    """Evaluate the model; see ``evaluation`` for the arguments and what it raises.

    Args:
        groups: of a mixture, the source of each micro-batch.
    """
    model.eval()
    device = compute_device(model)
    names = groups.names if groups is not None else ("",)
    # the sum of the losses and the label tokens, of each source
    sums = torch.zeros((len(names), 2), dtype=torch.float64, device=device)
    step_losses: list[float] = []
    with compute_context(model, train_config):
        for step, batch in enumerate(eval_dataloader):
            if train_config.max_eval_step and step >= train_config.max_eval_step:
                break
            count, group = batches.label_tokens(batch), groups.order[step] if groups else 0
            loss = model(**batches.prepare(batch, device), num_items_in_batch=1).loss
            sums[group, 0] += loss
            sums[group, 1] += count
            if train_config.save_metrics and count:
                step_losses.append(float(loss) / count)
    found = all_reduce_sum(sums).tolist()
    loss_sum, label_tokens = (sum(column) for column in zip(*found, strict=True))
    if not label_tokens:
        raise ValueError("the validation set has no label tokens")
    each = zip(names, found, strict=True)
    by_source = {name: total / count for name, (total, count) in each if name and count}
    return Evaluated(loss_sum / label_tokens, int(label_tokens), step_losses, by_source)


def groups_of(dataloader: object) -> GroupedBatchSampler | None:
    """Return what knows the source of each of a loader's micro-batches; None if nothing does."""
    sampler = getattr(dataloader, "batch_sampler", None)
    return sampler if isinstance(sampler, GroupedBatchSampler) else None
