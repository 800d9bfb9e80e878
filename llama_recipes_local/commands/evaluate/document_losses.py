"""The loss on validation batches: its mean, as training logs it, and the loss of each document."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import peft
import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutputWithPast

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import method_of
from llama_recipes_local.commands.evaluate.metrics import Document
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.training.batches import Batch, document_lengths, is_packed
from llama_recipes_local.training.evaluation import evaluation


@dataclass
class DocumentLosses:
    """Each document's loss.

    Attributes:
        keys: a hash of each document's ids and labels, with a number that counts equal documents.
        losses: the sum over its label tokens.
        tokens: the number of its label tokens.
    """

    keys: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    _seen: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch, logits: torch.Tensor) -> None:
        """Add a batch's documents.

        Args:
            batch: ``input_ids`` and ``labels``, (batch, seq), packed or padded.
            logits: (batch, seq, vocabulary).
        """
        labels = batch["labels"][:, 1:]
        each = F.cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            labels.to(logits.device),
            ignore_index=IGNORE_INDEX,
            reduction="none",
        )
        sums = each.double().cpu()
        for row, start, end in _documents(batch):
            # a document's first token is predicted by none of its own
            targets = slice(start, end - 1)
            count = int((labels[row, targets] != IGNORE_INDEX).sum())
            if count:
                ids = batch["input_ids"][row, start:end].tolist()
                self.keys.append(self._key([ids, batch["labels"][row, start:end].tolist()]))
                self.losses.append(float(sums[row, targets].sum()))
                self.tokens.append(count)

    def records(self) -> list[Document]:
        """Return the documents as a result saves them."""
        each = zip(self.keys, self.losses, self.tokens, strict=True)
        return [{"key": key, "loss": loss, "tokens": tokens} for key, loss, tokens in each]

    def _key(self, content: list[list[int]]) -> str:
        digest = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        self._seen[digest] += 1
        return f"{digest}-{self._seen[digest]}"


def measure_loss(
    model: nn.Module, train_config: configs.train_config, batches: Iterable[Batch]
) -> tuple[float, DocumentLosses]:
    """Return the mean loss over all label tokens, as training evaluates it, and the documents'."""
    if isinstance(model, peft.PeftModel) and (method := method_of(model)) and method.attention:
        method.install(model)  # PEFT itself lets the documents of a packed row attend to each other
    documents = DocumentLosses()
    current: list[Batch] = []

    def recorded() -> Iterable[Batch]:
        for batch in batches:
            current[:] = [batch]
            yield batch

    def record(
        module: nn.Module, arguments: tuple[object, ...], output: CausalLMOutputWithPast
    ) -> None:
        assert output.logits is not None
        documents.add(current[0], output.logits)

    hook = model.register_forward_hook(record)
    try:
        _, loss, _, _ = evaluation(model, train_config, recorded())
    finally:
        hook.remove()
    return loss, documents


def _documents(batch: Batch) -> list[tuple[int, int, int]]:
    """Return each document's row, its first position and the one after its last."""
    if not is_packed(batch):  # padded on the right
        return [(row, 0, length) for row, length in enumerate(document_lengths(batch).tolist())]
    width = batch["input_ids"].shape[1]
    found = []
    for row, positions in enumerate(batch["position_ids"]):
        starts = (positions == 0).nonzero().flatten().tolist()
        found += [(row, a, b) for a, b in zip(starts, [*starts[1:], width], strict=True)]
    return found
