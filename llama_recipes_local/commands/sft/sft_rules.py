"""What is wrong with the flags of ``sft.py`` by themselves, with the machine, and with the data."""

from pathlib import Path

import torch
import trl
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import extras
from llama_recipes_local.adapters.lora import check_targets
from llama_recipes_local.commands.sft.choices import model_positions
from llama_recipes_local.commands.sft.flags import Arguments
from llama_recipes_local.commands.sft.trl_dataset import data_type
from llama_recipes_local.configs.values import out_of_range
from llama_recipes_local.datasets.local import LocalPart
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import ABOVE_0
from llama_recipes_local.parallel import device_type, launched_by_torchrun

ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
LOGGERS = ("none", "tensorboard")
ADAPTER_FLAGS = ("use_dora", "use_rslora", "adapter_dtype")
QUANTISATION_FLAGS = ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")
POSITIVE = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "num_train_epochs",
    "max_length",
    "lora_r",
    "lora_alpha",
)


def check_options(options: Arguments, given: set[str]) -> list[Problem]:
    """Return what is wrong with flags by themselves, or next to each other.

    Args:
        options: the value of every flag.
        given: the names of those that the user gave.
    """
    return [
        *_named(options),
        *_numbers(options),
        *_without_its_topic(options, given),
        *_quantisation(options),
        *_targets(options),
        *_precision(options),
        *_attention(options),
        *_loggers(options),
        *_length(options),
    ]


def check_machine(options: Arguments) -> list[Problem]:
    """Return why one process cannot have the devices that it sees, or lacks a package."""
    problems = []
    on_cpu = options.use_cpu or device_type() == "cpu"
    if on_cpu and trl.__version__.startswith("1.15."):
        problems.append(
            Problem(
                f"TRL {trl.__version__} on CPU",
                "this release computes the loss in Triton alone, which needs a CUDA device",
                "pip install 'trl!=1.15.*'",
            )
        )
    count = torch.cuda.device_count() if not options.use_cpu else 0
    if count > 1 and not launched_by_torchrun():
        problems.append(
            Problem(
                f"one process that sees {count} CUDA devices",
                "TRL would copy the model to all of them at each step, which it does not support",
                f"start it with torchrun --nproc_per_node {count} sft.py ..., or show it one: "
                "CUDA_VISIBLE_DEVICES=0",
            )
        )
    optimiser = str(getattr(options.optim, "value", options.optim))
    if any(word in optimiser for word in ("8bit", "paged", "bnb")):
        problems += extras.check_installed("bitsandbytes", f"--optim {optimiser}", "quantization")
    return problems


def check_data(
    options: Arguments, part: LocalPart, tokenizer: PreTrainedTokenizerBase
) -> list[Problem]:
    """Return what the data cannot be trained with."""
    return [
        *_template(options, part, tokenizer),
        *_loss(options, part),
        *_tokens(options, tokenizer),
    ]


def _template(
    options: Arguments, part: LocalPart, tokenizer: PreTrainedTokenizerBase
) -> list[Problem]:
    template = options.chat_template_path
    if template and not Path(template).expanduser().exists():
        return [
            Problem(
                f"--chat_template_path {template} does not exist",
                "templates are read from this machine",
                "name a .jinja file, or the folder of a tokenizer",
            )
        ]
    if data_type(part) == "conversational" and not (tokenizer.chat_template or template):
        return [
            Problem(
                f"{part} is conversations, and the tokenizer has no chat template",
                "the template says how turns become text",
                "name a .jinja file: --chat_template_path FILE",
            )
        ]
    return []


def _loss(options: Arguments, part: LocalPart) -> list[Problem]:
    kind = data_type(part)
    wanted = {
        "assistant_only_loss": "conversational",
        "completion_only_loss": "prompt-completion",
    }
    return [
        Problem(
            f"--{flag} with {part}",
            f"it is for {fitting} data, and this is {kind}",
            "leave it out, or use finetuning.py --dataset guanaco_dataset, which trains what "
            "follows '### Assistant:'",
        )
        for flag, fitting in wanted.items()
        if getattr(options, flag) and kind != fitting
    ]


def _tokens(options: Arguments, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    return [
        Problem(
            f"--{flag} {getattr(options, flag)}",
            "the tokenizer has no such token",
            "name one that it has, or leave it out",
        )
        for flag in ("eos_token", "pad_token")
        if getattr(options, flag) not in (None, *tokenizer.get_vocab())
    ]


def _named(options: Arguments) -> list[Problem]:
    problems = []
    if not options.dataset_name:
        problems.append(
            Problem(
                "no data was named",
                "training needs rows",
                "name a file or folder: --dataset_name ./datasets/openassistant-guanaco",
            )
        )
    if not options.output_dir:
        problems.append(
            Problem(
                "no output folder was named",
                "what is trained is saved there",
                "name one: --output_dir DIR",
            )
        )
    return problems


def _numbers(options: Arguments) -> list[Problem]:
    values = {name: getattr(options, name) for name in POSITIVE}
    return [
        problem
        for name, value in values.items()
        if value is not None
        for problem in out_of_range(name, value, ABOVE_0)
    ]


def _without_its_topic(options: Arguments, given: set[str]) -> list[Problem]:
    """Find flags that nothing would read."""
    adapters = [name for name in sorted(given) if name.startswith("lora_") or name in ADAPTER_FLAGS]
    quantised = [name for name in sorted(given) if name in QUANTISATION_FLAGS]
    problems = []
    if adapters and not options.use_peft:
        problems.append(
            Problem(
                f"{_flags(adapters)} without --use_peft",
                "no adapter would be made, all weights would be trained",
                f"add --use_peft, or leave {_flags(adapters)} out",
            )
        )
    if quantised and not options.load_in_4bit:
        problems.append(
            Problem(
                f"{_flags(quantised)} without --load_in_4bit",
                "no weight would be quantised",
                f"add --load_in_4bit, or leave {_flags(quantised)} out",
            )
        )
    return problems


def _quantisation(options: Arguments) -> list[Problem]:
    if options.load_in_4bit and options.load_in_8bit:
        return [
            Problem(
                "--load_in_4bit with --load_in_8bit",
                "a weight is held in one of them",
                "leave --load_in_8bit out",
            )
        ]
    if (options.load_in_4bit or options.load_in_8bit) and not options.use_peft:
        return [
            Problem(
                f"--load_in_{'4' if options.load_in_4bit else '8'}bit without --use_peft",
                "quantised weights cannot be trained, adapters on them can",
                "add --use_peft",
            )
        ]
    return []


def _targets(options: Arguments) -> list[Problem]:
    wanted = options.lora_target_modules or []
    model = Path(options.model_name_or_path or "").expanduser()
    problems = check_targets(wanted, model, "lora_target_modules")
    if "lm_head" in wanted:
        problems.append(
            Problem(
                "--lora_target_modules lm_head",
                "TRL multiplies by the head's own weight, so an adapter on it is never trained",
                "leave lm_head out",
            )
        )
    return problems


def _precision(options: Arguments) -> list[Problem]:
    if options.fp16 and (options.use_cpu or device_type() == "cpu"):
        return [
            Problem(
                "--fp16 on CPU",
                "training in float16 needs a CUDA device",
                "leave it out: on CPU training is in float32",
            )
        ]
    return []


def _attention(options: Arguments) -> list[Problem]:
    if options.attn_implementation in (None, *ATTENTION):
        return []
    return [
        Problem(
            f"--attn_implementation {options.attn_implementation} does not exist here",
            f"there are {', '.join(ATTENTION)}; kernels of the Hub would have to be fetched",
            "leave it out, or use --attn_implementation sdpa",
        )
    ]


def _loggers(options: Arguments) -> list[Problem]:
    logger = options.report_to
    if logger not in LOGGERS:
        return [
            Problem(
                f"--report_to {logger}",
                f"there are {', '.join(LOGGERS)}: what others do may leave this machine",
                "use --report_to tensorboard; metrics.jsonl is written in any case",
            )
        ]
    if logger == "tensorboard":
        return extras.check_installed("tensorboard", "--report_to tensorboard", "tensorboard")
    return []


def _length(options: Arguments) -> list[Problem]:
    positions = model_positions(options.model_name_or_path)
    if positions is None or options.max_length is None or options.max_length <= positions:
        return []
    return [
        Problem(
            f"--max_length {options.max_length}",
            f"the model takes {positions} positions (max_position_embeddings)",
            f"add --max_length {positions}, or less",
        )
    ]


def _flags(names: list[str]) -> str:
    return " ".join(f"--{name}" for name in names)
