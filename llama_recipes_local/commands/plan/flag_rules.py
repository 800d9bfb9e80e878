"""What is wrong with the flags of a run that is planned, as far as it can be known without torch.

A run's own checks are those of ``preflight``; a plan should not print a command that they refuse.
"""

from collections.abc import Collection

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.configs.values import check_fields
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import facts
from llama_recipes_local.planning.asked import Asked, bits
from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.setting import FULL, OFFLOAD, REPLICATED, SELECTIVE
from llama_recipes_local.planning.shapes import LINEAR, Shape

_OTHERS = ("lm_head", "embed_tokens")


def check_asked(asked: Asked, shape: Shape, given: Collection[str]) -> list[Problem]:
    """Return what is wrong with a run's flags.

    Args:
        asked: its configurations.
        shape: of the model.
        given: names of the fields that flags set.
    """
    configurations = [each for each in (asked.train, asked.peft) if each is not None]
    found = [problem for each in configurations for problem in check_fields(each, only=given)]
    return [*found, *_without_fsdp(asked, given), *_targets(asked), *_positions(asked, shape)]


def check_method(asked: Asked, shape: Shape, card: Card, given: Collection[str]) -> list[Problem]:
    """Return why what is trained cannot be trained so.

    Args:
        asked: its configurations.
        shape: of the model.
        card: each GPU.
        given: names of the fields that flags set.
    """
    train = asked.train
    found = [*_parts(asked, shape), *_policy(asked, given), *_whole_weights(asked, given)]
    if train.use_fp16 and asked.fsdp["pure_bf16"]:
        why = "weights are computed in float16 or in bfloat16"
        found.append(Problem("--use_fp16 with --pure_bf16", why, "leave one of them out"))
    if train.quantization and not train.use_peft:
        why = "quantised weights cannot be trained, only an adapter on them can"
        what = f"--quantization {train.quantization} without --use_peft"
        found.append(Problem(what, why, "add --use_peft"))
    return [*found, *_fp8(asked, card)] if train.fp8 else found


def check_several(asked: Asked, flags: Collection[str], world: int) -> list[Problem]:
    """Find FSDP that is switched off where several GPUs train one model."""
    named = {flag.rpartition(".")[2] for flag in flags}
    if asked.train.enable_fsdp or "enable_fsdp" not in named:
        return []
    why, fix = "several GPUs train one model through FSDP", "leave it out, or plan for --gpus 1"
    return [Problem(f"--enable_fsdp False with {world} GPUs", why, fix)]


def _fp8(asked: Asked, card: Card) -> list[Problem]:
    """Find what weights in fp8 cannot be used with."""
    train = asked.train
    why = {}
    if not card.fp8:
        why[f"on {card.name}"] = "it needs an NVIDIA GPU of the Hopper generation or later"
    if train.quantization:
        why[f"with --quantization {train.quantization}"] = "weights are in fp8 or in another form"
    if train.use_fp16 or train.dtype in ("float16", "float32"):
        other = "--use_fp16" if train.use_fp16 else f"--dtype {train.dtype}"
        why[f"with {other}"] = "what is not multiplied in fp8 is bfloat16"
    if not (train.use_peft or train.freeze_layers or train.train_only or train.top_layers):
        why["without --use_peft"] = "all weights would be trained, and fp8 is for frozen ones"
    if asked.peft is not None:
        for flag in METHODS[train.peft_method].reads_weights(asked.peft):
            why[f"with {flag}"] = "it is computed from the weights themselves"
    return [Problem(f"--fp8 {what}", reason, "leave --fp8 out") for what, reason in why.items()]


def _whole_weights(asked: Asked, given: Collection[str]) -> list[Problem]:
    """Find sharding of weights that are kept whole on each device."""
    strategy = asked.fsdp["sharding_strategy"]
    sharded = {
        f"--sharding_strategy {strategy}": "sharding_strategy" in given and strategy != REPLICATED,
        "--hsdp": asked.fsdp["hsdp"],
    }
    train = asked.train
    kind = "--fp8" if train.fp8 else f"--quantization {train.quantization}"
    if not (train.enable_fsdp and (train.fp8 or bits(train) == 8)):
        return []
    why, fix = "such weights are kept whole on each device", "use --sharding_strategy NO_SHARD"
    return [Problem(f"{kind} with {flag}", why, fix) for flag, is_so in sharded.items() if is_so]


def _policy(asked: Asked, given: Collection[str]) -> list[Problem]:
    """Find flags that say otherwise than the policy, or one that needs LoRA."""
    train, policy = asked.train, asked.train.activation_policy
    if policy == AUTO:
        return []
    found = []
    if policy == SELECTIVE and not (train.use_peft and train.peft_method == "lora"):
        why = "norms' outputs are kept for LoRA's matrices alone, or for weights that are trained"
        fix = "use --activation_policy full"
        found.append(Problem("--activation_policy selective without LoRA", why, fix))
    recomputes = policy in (FULL, OFFLOAD)
    does = "recomputes layers" if recomputes else "keeps what layers compute"
    values = {
        "gradient_checkpointing": train.gradient_checkpointing,
        "fsdp_activation_checkpointing": asked.fsdp["fsdp_activation_checkpointing"],
    }
    for flag, value in values.items():
        if flag in given and value != recomputes:
            what = f"--activation_policy {policy} with --{flag} {value}"
            found.append(Problem(what, f"the policy {does}", "leave one of them out"))
    return found


def _parts(asked: Asked, shape: Shape) -> list[Problem]:
    """Find several answers to what is trained, and parts that the model does not have."""
    train = asked.train
    every = {
        "--use_peft": train.use_peft,
        "--freeze_layers": train.freeze_layers,
        f"--train_only {train.train_only}": train.train_only,
        f"--top_layers {train.top_layers}": train.top_layers,
    }
    named = [flag for flag, value in every.items() if value]
    if len(named) > 1:
        why = "each says what is trained"
        return [Problem(f"{named[1]} with {named[0]}", why, "leave one of them out")]
    why = f"the model has {shape.layers} layers"
    if train.freeze_layers and train.num_freeze_layers > shape.layers:
        what = f"--num_freeze_layers {train.num_freeze_layers}"
        return [Problem(what, why, f"give it from 1 to {shape.layers}")]
    kind, _, number = train.train_only.partition(":")
    last = int(number) if kind == "last" and number.isdecimal() and len(number) < 6 else 0
    if not train.train_only or train.train_only == "lm_head" or 1 <= last <= shape.layers:
        return []
    fix = f"use --train_only lm_head, or last:1 to last:{shape.layers}"
    return [Problem(f"--train_only {train.train_only}", f"there is no such part: {why}", fix)]


def _without_fsdp(asked: Asked, given: Collection[str]) -> list[Problem]:
    """Find flags of several ranks where there is one process."""
    if asked.train.enable_fsdp:
        return []
    return [
        Problem(
            f"--{name} without --enable_fsdp",
            "one GPU trains in one process, which shards nothing",
            f"give --gpus N or --enable_fsdp too, or leave --{name} out",
        )
        for name, known in facts(configs.fsdp_config).items()
        if name in given and known.needs is not None and "enable_fsdp" in known.needs.settings
    ]


def _targets(asked: Asked) -> list[Problem]:
    """Find targets of LoRA that a Llama does not have."""
    targets = getattr(asked.peft, "target_modules", "all-linear")
    if targets == "all-linear":
        return []
    unknown = [name for name in targets if name.rpartition(".")[2] not in (*LINEAR, *_OTHERS)]
    known = ",".join(LINEAR)
    return [
        Problem(f"--target_modules {name}", "a Llama has no such layer", f"use some of {known}")
        for name in unknown
    ]


def _positions(asked: Asked, shape: Shape) -> list[Problem]:
    """Find rows that are longer than the model takes."""
    length = asked.train.context_length
    packed = asked.train.batching_strategy == "packing"
    if not packed or not shape.positions or length <= shape.positions:
        return []
    return [
        Problem(
            f"--context_length {length}",
            f"the model has {shape.positions} positions (max_position_embeddings)",
            f"use --context_length {shape.positions} or less",
        )
    ]
