"""The saved adapter that a run goes on from: it is of the method that was asked for, and whole."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llama_recipes_local.adapters.registry import METHODS, method_of_type
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import field_names
from llama_recipes_local.model_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.weight_files import unreadable
from llama_recipes_local.preflight.adapter_rules import check_attention
from llama_recipes_local.run.resolution import Run


def check_saved_adapter(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    """Return what is wrong with the adapter that a run goes on from.

    Args:
        run: the run.
        config: the model's ``config.json``; empty if it cannot be read.
        folder: the model's folder.
    """
    if not run.train.use_peft or run.peft is None or not run.train.from_peft_checkpoint:
        return []
    return _going_on(run) or _whole(run, config, folder)


def _going_on(run: Run) -> list[Problem]:
    """Compare the flags with the adapter that the run goes on from: it stays what it is."""
    folder = Path(run.train.from_peft_checkpoint).expanduser().resolve()
    path = folder / ADAPTER_CONFIG
    try:
        saved = json.loads(path.read_text("utf-8"))
        kind = saved["peft_type"]
    except FileNotFoundError:  # told with the model's files
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Problem(f"{path} is no adapter's configuration", repr(error), "copy it again")]
    method = method_of_type(kind)
    name = method.name if method is not None else kind
    what = f"--from_peft_checkpoint {run.train.from_peft_checkpoint}"
    if method is None or name != run.train.peft_method:
        why, fix = f"the adapter there is {name}", f"use --peft_method {name}"
        if method is None:
            fix = f"name an adapter that is {', '.join(METHODS)}"
        return [Problem(f"{what} with --peft_method {run.train.peft_method}", why, fix)]
    problems = []
    for name in run.given & set(field_names(run.peft)):
        asked, there = getattr(run.peft, name), saved.get(name)
        if name in saved and _plain(asked) != _plain(there):
            why, fix = f"the adapter there has {name} {there}", f"leave --{name} out"
            problems.append(Problem(f"{what} with --{name} {asked}", why, fix))
    return problems + check_attention(run, method, what)


def _whole(run: Run, config: dict[str, Any], model: Path) -> list[Problem]:
    """Compare the names in the adapter's file with those that the model's adapter will have."""
    import peft

    from llama_recipes_local.adapters.compatibility import UNFIT, adapted_empty, misfit, unfit
    from llama_recipes_local.models import AutoConfig
    from llama_recipes_local.models.empty import empty_model

    folder = Path(run.train.from_peft_checkpoint).expanduser().resolve()
    weights = folder / ADAPTER_WEIGHTS
    if config.get("model_type") != "llama" or not weights.is_file():
        return []
    plain = empty_model(AutoConfig.from_pretrained(model))
    names = {name for name, _ in plain.named_parameters()}
    try:
        saved = peft.PeftConfig.from_pretrained(str(folder), local_files_only=True)
        why: Any = misfit(adapted_empty(plain, saved), names, weights)
    except (OSError, SafetensorError) as error:
        return [unreadable(weights, error)]
    except UNFIT as error:
        why = error
    return [unfit("--from_peft_checkpoint", folder, why)] if why else []


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value
