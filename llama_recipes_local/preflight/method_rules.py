"""What is trained and how: the methods' own settings, and those that do not go together."""

from pathlib import Path
from typing import Any

from torch.distributed.fsdp import StateDictType

from llama_recipes_local.adapters.registry import METHODS, config_classes
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import field_names
from llama_recipes_local.model_folders import read_config
from llama_recipes_local.models.freezing import LM_HEAD, last_layers
from llama_recipes_local.preflight.adapter_rules import check_adapter
from llama_recipes_local.preflight.saved_adapter_rules import check_saved_adapter
from llama_recipes_local.run.resolution import Run


def check_methods(run: Run) -> list[Problem]:
    """Return what is wrong with the method, its settings and the model it is for."""
    folder = Path(run.train.model_name).resolve()
    config = read_config(folder)
    return [
        *_settings_of_others(run),
        *_lora_plus(run.train),
        *_partial_with_partial(run.train),
        *_frozen_layers(run.train, config),
        *_train_only(run.train, config),
        *_top_layers(run, config),
        *_of_vision_models(run.train, config),
        *check_adapter(run, config, folder),
        *check_saved_adapter(run, config, folder),
    ]


def _settings_of_others(run: Run) -> list[Problem]:
    """Find settings of adapters that this run does not make."""
    train = run.train
    if train.use_peft and run.peft is None:  # there is no such method, which is told elsewhere
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
            Problem(
                f"--{flag} with {what}", "nothing would use it", f"leave it out, or use {flags}"
            )
        )
    return problems


def _lora_plus(train: Any) -> list[Problem]:
    ratio = train.loraplus_lr_ratio
    what = f"--loraplus_lr_ratio {ratio}"
    if ratio < 0:
        return [Problem(what, "it is a multiple of --lr", "give it 1 or more, or leave it out")]
    if ratio and not (train.use_peft and train.peft_method == "lora"):
        fix = "leave it out, or use --use_peft --peft_method lora"
        return [Problem(f"{what} without LoRA", "only LoRA has matrices B", fix)]
    return []


def _partial_with_partial(train: Any) -> list[Problem]:
    """Find two answers to what is trained."""
    partial = {
        "--freeze_layers": train.freeze_layers,
        f"--train_only {train.train_only}": train.train_only,
        f"--top_layers {train.top_layers}": train.top_layers,
    }
    given = [flag for flag, value in partial.items() if value]
    if train.use_peft and given:
        what = f"{given[0]} with --use_peft"
        return [Problem(what, "only the adapter is trained then", "leave one of them out")]
    if len(given) < 2:
        return []
    what = f"{given[0]} with {given[1]}"
    return [Problem(what, "each says by itself what is trained", "leave one of them out")]


def _frozen_layers(train: Any, config: dict[str, Any]) -> list[Problem]:
    layers = config.get("num_hidden_layers")
    if not train.freeze_layers or not isinstance(layers, int):
        return []
    if 1 <= train.num_freeze_layers <= layers:
        return []
    return [
        Problem(
            f"--num_freeze_layers {train.num_freeze_layers}",
            f"the model has {layers} layers (num_hidden_layers)",
            f"give it from 1 to {layers}",
        )
    ]


def _train_only(train: Any, config: dict[str, Any]) -> list[Problem]:
    if not train.train_only:
        return []
    what, layers = f"--train_only {train.train_only}", config.get("num_hidden_layers")
    if train.train_only == LM_HEAD:
        if not config.get("tie_word_embeddings"):
            return []
        why = "this model's head is its embedding (tie_word_embeddings), which would change with it"
        return [Problem(what, why, "use --top_layers 1, or --train_only last:1")]
    last = last_layers(train.train_only)
    if last is None:
        why = "it is lm_head, or last:N for the last N decoder layers"
        return [Problem(what, why, "use --train_only lm_head, or --train_only last:1")]
    if isinstance(layers, int) and not 1 <= last <= layers:
        why = f"the model has {layers} layers (num_hidden_layers)"
        return [Problem(what, why, f"give it from last:1 to last:{layers}")]
    return []


def _top_layers(run: Run, config: dict[str, Any]) -> list[Problem]:
    asked, there = run.train.top_layers, config.get("top_layers", 0)
    if asked < 0:
        return [Problem(f"--top_layers {asked}", "it is a number of layers", "give it 1 or more")]
    if asked and there and asked != there:
        return [
            Problem(
                f"--top_layers {asked}",
                f"the model in --model_name has {there} such layers already",
                f"use --top_layers {there}, which goes on with them",
            )
        ]
    return _top_layers_in_shards(run) if asked or there else []


def _top_layers_in_shards(run: Run) -> list[Problem]:
    trains_whole = run.train.enable_fsdp and run.train.save_model and not run.train.use_peft
    if not trains_whole or run.fsdp.checkpoint_type == StateDictType.FULL_STATE_DICT:
        return []
    return [
        Problem(
            "layers on top with --checkpoint_type SHARDED_STATE_DICT",
            "a folder of shards has no config.json, and does not say that the model has them",
            "add --checkpoint_type FULL_STATE_DICT",
        )
    ]


def _of_vision_models(train: Any, config: dict[str, Any]) -> list[Problem]:
    if config.get("model_type") != "mllama":
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
            "it is made for the layers of a model of text (model_type llama)",
            f"use --use_peft --peft_method {able}",
        )
        for flag, given in choices.items()
        if given
    ]
