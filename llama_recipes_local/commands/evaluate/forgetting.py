"""``evaluate --benchmark forgetting``: perplexity on general texts, before training and after."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.answers.model_loading import (
    load_model,
    load_tokenizer,
    vocabulary_and_positions,
)
from llama_recipes_local.answers.model_source import ModelSource, find_source
from llama_recipes_local.benchmark_tasks.forgetting_losses import loss_of_row, rows_of_texts
from llama_recipes_local.benchmark_tasks.forgetting_texts import FORGETTING, KINDS
from llama_recipes_local.commands.evaluate.flag_checks import refuse_unknown_tokens
from llama_recipes_local.commands.evaluate.metrics import Document
from llama_recipes_local.commands.evaluate.results import Result
from llama_recipes_local.errors import UsageError, refusal


def before(source: ModelSource) -> ModelSource | None:
    """Return the model as it was before training; None if it is not known or not there any more.

    Of an adapter it is the base model, of a full model the one that its run's record names.
    """
    if source.adapter is not None:
        return replace(source, adapter=None)
    named = source.run.get("train_config", "model_name")
    folder = Path(str(named)).expanduser().resolve() if named else source.model
    if folder == source.model:
        return None
    try:
        return find_source(None, folder)
    except UsageError:  # it has moved, and is not asked for
        return None


def losses(source: ModelSource) -> list[Document]:
    """Return a model's loss on each text, which is read by itself."""
    tokenizer = load_tokenizer(source)
    rows, positions = vocabulary_and_positions(source)
    read = rows_of_texts(tokenizer)
    refuse_unknown_tokens({token for ids in read.values() for token in ids}, tokenizer, rows)
    longest = max(map(len, read.values()))
    if positions is not None and longest > positions:
        why = f"the model has {positions:,} positions (max_position_embeddings)"
        raise refusal(f"a text of --benchmark {FORGETTING} has {longest:,} tokens", why)
    model = load_model(source)
    found: list[Document] = [
        {"key": key, "loss": loss_of_row(model, ids), "tokens": len(ids) - 1}
        for key, ids in read.items()
    ]
    del model
    gc.collect()  # before the next is loaded
    return found


def perplexities(found: Sequence[Document]) -> dict[str, float]:
    """Return the perplexity of each kind, and of all texts."""
    kinds = {kind: [each for each in found if each["key"].startswith(kind)] for kind in KINDS}
    return {
        name: perplexity(
            sum(each["loss"] for each in texts) / sum(each["tokens"] for each in texts)
        )
        for name, texts in {**kinds, "all": found}.items()
    }


def measure_forgetting(source: ModelSource, result: Result) -> list[list[str]]:
    """Fill a result; return a table's rows: a kind, its perplexity before and after, the change."""
    earlier = before(source)
    was = perplexities(losses(earlier)) if earlier else {}
    result.documents = losses(source)
    now = perplexities(result.documents)
    result.metrics = {"perplexity": {"value": now["all"], "before": was.get("all")}}
    result.parts = {
        "perplexity": [{"name": kind, "before": was.get(kind), "value": now[kind]} for kind in now]
    }
    return [
        [kind, *([f"{was[kind]:.3f}"] if was else []), f"{now[kind]:.3f}"]
        + ([f"{now[kind] / was[kind] - 1:+.1%}"] if was else [])
        for kind in now
    ]
