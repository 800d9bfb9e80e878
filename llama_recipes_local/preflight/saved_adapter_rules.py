"""Rules for a saved adapter that is trained further: its method, settings and parameters."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llama_recipes_local.adapters.base import HEAD
from llama_recipes_local.adapters.lora_flags import untrained_head
from llama_recipes_local.adapters.registry import METHODS, method_of_type
from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.fields import field_names
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.model_folders.model_config import load_config
from llama_recipes_local.model_folders.weight_files import check_weights, unreadable
from llama_recipes_local.models.weight_values import check_adapter_values
from llama_recipes_local.preflight.adapter_rules import check_attention
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_saved_adapter(run: Run) -> list[Problem]:
    """Return what is wrong with the adapter that a run continues to train."""
    if not run.train.use_peft or run.peft is None or not run.train.from_peft_checkpoint:
        return []
    return _compare_settings(run) or _compare_parameters(run) or _compare_base(run)


def _compare_settings(run: Run) -> list[Problem]:
    """Compare the flags with the saved adapter's configuration, which can no longer change."""
    folder = Path(run.train.from_peft_checkpoint).expanduser().resolve()
    path = folder / ADAPTER_CONFIG
    if not path.is_file():  # check_model reports it
        return []
    with caught() as problems, door(f"{path} is not an adapter's configuration", "copy it again"):
        saved = json.loads(path.read_text("utf-8"))
        kind = saved["peft_type"]
    if problems:
        return problems
    method = method_of_type(kind)
    name = method.name if method is not None else kind
    what = f"--from_peft_checkpoint {run.train.from_peft_checkpoint}"
    if method is None or name != run.train.peft_method:
        why, fix = f"the adapter there is {name}", f"use --peft_method {name}"
        if method is None:
            fix = f"name an adapter that is {', '.join(METHODS)}"
        return [Problem(f"{what} with --peft_method {run.train.peft_method}", why, fix)]
    for name in run.given & set(field_names(run.peft)):
        asked, there = getattr(run.peft, name), saved.get(name)
        if name in saved and _plain(asked) != _plain(there):
            why, fix = f"the adapter there has {name} {there}", f"leave --{name} out"
            problems.append(Problem(f"{what} with --{name} {asked}", why, fix))
    head = f"an adapter on {HEAD}, as in {path},"
    problems += untrained_head(run, saved.get("target_modules") or (), head)
    return problems + check_attention(run, method, what)


def _compare_parameters(run: Run) -> list[Problem]:
    """Compare the names in the adapter's file with those that the model's adapter will have."""
    import peft

    from llama_recipes_local.adapters.compatibility import (
        adapt_empty,
        find_mismatch,
        mismatch_problem,
    )
    from llama_recipes_local.models.deferred import empty_model

    folder = Path(run.train.from_peft_checkpoint).expanduser().resolve()
    weights = folder / ADAPTER_WEIGHTS
    if model_config(run).get("model_type") != "llama" or not weights.is_file():
        return []
    with caught() as problems:
        model = Path(run.train.model_name).resolve()
        plain = empty_model(load_config(model, "copy the model again"))
        with door(f"{folder / ADAPTER_CONFIG} is not a PEFT configuration", "copy it again"):
            saved = peft.PeftConfig.from_pretrained(str(folder), local_files_only=True)
    if problems:
        return problems
    names = {name for name, _ in plain.named_parameters()}
    try:
        why: Any = find_mismatch(adapt_empty(plain, saved), names, weights)
    except (OSError, SafetensorError) as error:
        return [unreadable(weights, error)]
    except Exception as error:  # PEFT raises a different error for each field
        why = error
    return [mismatch_problem("--from_peft_checkpoint", folder, why)] if why else []


def _compare_base(run: Run) -> list[Problem]:
    """Compare the model with the one that the adapter was trained on."""
    folder, base = (
        Path(each).expanduser().resolve()
        for each in (run.train.from_peft_checkpoint, run.train.model_name)
    )
    if not (folder / ADAPTER_WEIGHTS).is_file() or check_weights(base):
        return []
    compared = compare_base(folder, base, "--model_name", run.train.allow_other_base)
    return check_adapter_values(folder) + compared.problems


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value
