"""Rules for ``--train_new_tokens``: what it works with, and whether there are new tokens at all."""

from pathlib import Path

from llama_recipes_local.adapters.base import EMBEDDING, HEAD
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.adapter_files import trained_tokens, vocabulary_of_adapter
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.models.new_tokens import FLAG, candidates, never_trained
from llama_recipes_local.preflight.model import check_model
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run

LEAVE_OUT = f"leave {FLAG} out"


def check_new_tokens(run: Run) -> list[Problem]:
    """Return what is wrong with training the embedding rows of new tokens."""
    continues = run.train.use_peft and run.train.from_peft_checkpoint
    if not (run.train.train_new_tokens or continues) or check_model(run):
        return []
    if continues:
        return _check_saved(run)
    return [*_check_method(run), *_check_targets(run), *_check_any(run)]


def _check_method(run: Run) -> list[Problem]:
    """Find methods that cannot be combined with training rows of single tokens."""
    train = run.train
    others = {
        "a vision model": model_config(run).get("model_type") == "mllama",
        f"--peft_method {train.peft_method}": train.use_peft and train.peft_method != "lora",
        f"--train_only {train.train_only}": bool(train.train_only),
        f"--top_layers {train.top_layers}": bool(train.top_layers),
    }
    why = "rows of single tokens are trained with LoRA, or with all of a text model's weights"
    return [
        Problem(f"{FLAG} with {name}", why, LEAVE_OUT) for name, given in others.items() if given
    ]


def _check_targets(run: Run) -> list[Problem]:
    """Find LoRA on a layer whose rows are trained: PEFT allows one of the two per layer."""
    targets = getattr(run.peft, "target_modules", [])
    return [
        Problem(
            f"{FLAG} with --target_modules {layer}",
            "a layer has LoRA or trained rows, not both",
            f"leave {layer} out of --target_modules",
        )
        for layer in (EMBEDDING, HEAD)
        if layer in targets
    ]


def _check_any(run: Run) -> list[Problem]:
    """Find a tokenizer without a new token."""
    found = candidates(run.train, run_tokenizer(run))
    folder = Path(run.train.model_name).expanduser().resolve()
    if found is None or found.missing or found.foreign or never_trained(folder, found.added):
        return []
    why = f"all {found.own:,} tokens of the tokenizer have rows that the model was trained on"
    fix = f"name the tokenizer that has the new ones: --tokenizer_name DIR; or {LEAVE_OUT}"
    return [Problem(FLAG, why, fix)]


def _check_saved(run: Run) -> list[Problem]:
    """Compare the rows of a saved adapter with the flag and with the tokenizer."""
    folder = Path(run.train.from_peft_checkpoint).expanduser().resolve()
    what = f"--from_peft_checkpoint {run.train.from_peft_checkpoint}"
    if run.train.train_new_tokens and not trained_tokens(folder):
        why = "the adapter there trains no rows of single tokens, and cannot begin to"
        return [Problem(f"{what} with {FLAG}", why, LEAVE_OUT)]
    rows, before = vocabulary_of_adapter(folder) or 0, model_config(run).get("vocab_size")
    tokens = len(run_tokenizer(run))
    fits = rows <= tokens if trained_tokens(folder) else rows == tokens
    if not isinstance(before, int) or rows <= before or fits:
        return []
    why = f"the adapter there needs {rows:,} tokens, the tokenizer has {tokens:,}"
    fix = "name the tokenizer that it was trained with: --tokenizer_name DIR"
    return [Problem(what, why, fix)]
