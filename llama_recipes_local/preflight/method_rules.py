"""Rules for what is trained: an adapter, a part of the model, or all of it."""

from llama_recipes_local.adapters.registry import METHODS, config_classes
from llama_recipes_local.configs.model_types import VISION
from llama_recipes_local.configs.trained_part import LM_HEAD, last_layers
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import field_names, word_of
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_use_peft(run: Run) -> list[Problem]:
    """Find a method without ``use_peft``, which would train every weight."""
    if run.train.use_peft or "peft_method" not in run.given:
        return []
    return [adapter_is_off(f"--peft_method {run.train.peft_method}", "--peft_method")]


def adapter_is_off(what: str, flags: str) -> Problem:
    """Return the problem that settings of an adapter are given without ``use_peft``.

    Args:
        what: the settings, with their values where these help.
        flags: the flags alone.
    """
    return Problem(
        f"{what} without --use_peft",
        "no adapter would be made, all weights would be trained",
        f"add --use_peft, or leave {flags} out",
    )


def check_adapter_settings(run: Run) -> list[Problem]:
    """Find settings of adapters that this run does not have."""
    train = run.train
    if train.use_peft and run.peft is None:  # an unknown method, which check_values reports
        return []
    used = set(field_names(run.peft)) if run.peft is not None else set()
    problems = []
    for flag in run.flags:
        owner, _, name = flag.rpartition(".")
        owners = [
            method
            for method, cls in config_classes().items()
            if name in field_names(cls) and owner in ("", cls.__name__)
        ]
        mine = name in used and owner in ("", type(run.peft).__name__)
        if not owners or mine or (not owner and name in field_names(train)):
            continue
        what = f"--peft_method {train.peft_method}" if train.use_peft else "no --use_peft"
        flags = " or ".join(f"--use_peft --peft_method {method}" for method in owners)
        problems.append(
            Problem(f"--{flag} with {what}", "it would be ignored", f"leave it out, or use {flags}")
        )
    return problems


def check_lora_plus(run: Run) -> list[Problem]:
    """Find LoRA+ without LoRA."""
    train = run.train
    if not train.loraplus_lr_ratio or (train.use_peft and train.peft_method == "lora"):
        return []
    return [
        Problem(
            f"--loraplus_lr_ratio {train.loraplus_lr_ratio} without LoRA",
            "only LoRA has B matrices",
            "leave it out, or use --use_peft --peft_method lora",
        )
    ]


def check_one_part_is_trained(run: Run) -> list[Problem]:
    """Find flags that contradict each other about what is trained."""
    train = run.train
    partial = {
        "--freeze_layers": train.freeze_layers,
        f"--train_only {train.train_only}": train.train_only,
        f"--top_layers {train.top_layers}": train.top_layers,
    }
    given = [flag for flag, value in partial.items() if value]
    if train.use_peft and given:
        what = f"{given[0]} with --use_peft"
        return [Problem(what, "only the adapter would be trained", "leave one of them out")]
    if len(given) < 2:
        return []
    what = f"{given[0]} with {given[1]}"
    return [Problem(what, "each selects what is trained", "leave one of them out")]


def check_frozen_layers(run: Run) -> list[Problem]:
    """Find more frozen layers than the model has."""
    layers, frozen = model_config(run).get("num_hidden_layers"), run.train.num_freeze_layers
    if not run.train.freeze_layers or not isinstance(layers, int) or frozen <= layers:
        return []
    return [
        Problem(
            f"--num_freeze_layers {frozen}",
            f"the model has {layers} layers (num_hidden_layers)",
            f"give it from 1 to {layers}",
        )
    ]


def check_train_only(run: Run) -> list[Problem]:
    """Find a part to train that the model does not have."""
    train, config = run.train, model_config(run)
    if not train.train_only:
        return []
    what, layers = f"--train_only {train.train_only}", config.get("num_hidden_layers")
    if train.train_only == LM_HEAD:
        if not config.get("tie_word_embeddings"):
            return []
        why = "this model's head is its embedding (tie_word_embeddings): both would be trained"
        return [Problem(what, why, "use --top_layers 1, or --train_only last:1")]
    last = last_layers(train.train_only)
    if last is None:
        why = "it is lm_head, or last:N for the last N decoder layers"
        return [Problem(what, why, "use --train_only lm_head, or --train_only last:1")]
    if isinstance(layers, int) and not 1 <= last <= layers:
        why = f"the model has {layers} layers (num_hidden_layers)"
        return [Problem(what, why, f"give it from last:1 to last:{layers}")]
    return []


def check_top_layers(run: Run) -> list[Problem]:
    """Find a number of top layers that differs from those that the model has already."""
    asked, there = run.train.top_layers, model_config(run).get("top_layers", 0)
    if not asked or not there or asked == there:
        return []
    return [
        Problem(
            f"--top_layers {asked}",
            f"the model in --model_name has {there} of these layers already",
            f"use --top_layers {there}, which continues to train them",
        )
    ]


def check_top_layers_in_shards(run: Run) -> list[Problem]:
    """Find top layers that a folder of shards would not record."""
    if not run.train.top_layers and not model_config(run).get("top_layers"):
        return []
    saves_full_model = run.train.enable_fsdp and run.train.save_model and not run.train.use_peft
    if not saves_full_model or word_of(run.fsdp, "checkpoint_type") == "FULL_STATE_DICT":
        return []
    return [
        Problem(
            "layers on top with --checkpoint_type SHARDED_STATE_DICT",
            "a folder of shards has no config.json to record them",
            "add --checkpoint_type FULL_STATE_DICT",
        )
    ]


def check_vision_model(run: Run) -> list[Problem]:
    """Find methods that are for text models only."""
    train = run.train
    if model_config(run).get("model_type") != VISION:
        return []
    method = METHODS.get(train.peft_method)
    able = next(name for name, each in METHODS.items() if each.supports_vision)
    choices = {
        "--freeze_layers": train.freeze_layers,
        f"--train_only {train.train_only}": train.train_only,
        f"--top_layers {train.top_layers}": train.top_layers,
        f"--peft_method {train.peft_method}": train.use_peft
        and method is not None
        and not method.supports_vision,
    }
    return [
        Problem(
            f"{flag} with a vision model",
            "it only works with text models (model_type llama)",
            f"use --use_peft --peft_method {able}",
        )
        for flag, given in choices.items()
        if given
    ]
