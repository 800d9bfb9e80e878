"""What keeps ``sft.py`` from starting: problems of its flags, the machine and the data.

A rule that ``finetuning.py`` has too is called from ``preflight``; only TRL's names are given here.
"""

from pathlib import Path

import torch
import trl
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import extras
from llama_recipes_local.adapters.lora_checks import check_targets
from llama_recipes_local.commands.sft.choices import model_positions
from llama_recipes_local.commands.sft.flags import Arguments
from llama_recipes_local.commands.sft.trl_dataset import asked_labels, data_type
from llama_recipes_local.configs.values import out_of_range
from llama_recipes_local.datasets.layouts import Layout
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import ABOVE_0
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.parallel import device_type, launched_by_torchrun
from llama_recipes_local.preflight.earlier_results import check_output_has_no_weights
from llama_recipes_local.preflight.method_rules import adapter_is_off
from llama_recipes_local.preflight.model import UNNAMED
from llama_recipes_local.preflight.model_sizes import longer_than_model
from llama_recipes_local.preflight.precision_rules import float16_on_cpu
from llama_recipes_local.preflight.quantization_rules import untrainable

ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
LOGGERS = ("none", "tensorboard")
ADAPTER_FLAGS = ("use_dora", "use_rslora", "adapter_dtype")  # and lora_*
FLAGS_OF_4BIT = ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")
NO_DATA, NO_OUTPUT = "no data was named", "no output folder was named"
NAMED_BY = {UNNAMED: "--model_name", NO_DATA: "--dataset_name", NO_OUTPUT: "--output_dir"}
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
    """Return the problems of single flags, and of flags that exclude each other.

    Args:
        options: the value of every flag.
        given: the names of those that the user gave.
    """
    return [
        *_required(options),
        *_numbers(options),
        *_ignored(options, given),
        *_quantisation(options),
        *_targets(options),
        *_precision(options),
        *_attention(options),
        *_loggers(options),
        *_length(options),
        *_template(options),
        *_named_twice(options, given),
    ]


def without_misnamed(problems: list[Problem], of_flags: list[Problem]) -> list[Problem]:
    """Return the problems without "none was named" where a flag that names one is refused.

    Args:
        problems: what was found without the flags that are refused.
        of_flags: why they are refused, with the flag that each means.
    """
    meant = " ".join(f"{problem.what} {problem.fix}" for problem in of_flags)
    named = [what for what, flag in NAMED_BY.items() if flag in meant]
    return [problem for problem in problems if problem.what not in named]


def check_machine(options: Arguments) -> list[Problem]:
    """Return the problems of TRL's release, of the visible devices and of missing packages."""
    problems = []
    on_cpu = options.use_cpu or device_type() == "cpu"
    if on_cpu and trl.__version__.startswith("1.15."):
        problems.append(
            Problem(
                f"TRL {trl.__version__} on CPU",
                "this release computes the loss in Triton only, which needs a CUDA device",
                extras.install("trl!=1.15.*"),
            )
        )
    count = torch.cuda.device_count() if not options.use_cpu else 0
    if count > 1 and not launched_by_torchrun():
        problems.append(
            Problem(
                f"one process that sees {count} CUDA devices",
                "TRL would use DataParallel, which it does not support",
                f"start it with torchrun --nproc_per_node {count} sft.py ..., or make only one "
                "visible: CUDA_VISIBLE_DEVICES=0",
            )
        )
    optimiser = str(getattr(options.optim, "value", options.optim))
    if any(word in optimiser for word in ("8bit", "paged", "bnb")):
        problems += extras.check_installed("bitsandbytes", f"--optim {optimiser}", "quantization")
    return problems


def check_labels(options: Arguments, layout: Layout) -> list[Problem]:
    """Return TRL's flags of the loss that do not suit data of a layout."""
    kind = data_type(layout)
    wanted = {
        "assistant_only_loss": "conversational",
        "completion_only_loss": "prompt-completion",
    }
    return [
        Problem(
            f"--{flag} with {layout} records",
            f"it is for {suited} data, and this is {kind}",
            "leave it out, or use finetuning.py --dataset guanaco_dataset, which trains on what "
            "follows '### Assistant:'",
        )
        for flag, suited in wanted.items()
        if getattr(options, flag) and suited != kind
    ]


def check_tokens(options: Arguments, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    """Return the tokens that flags name and the tokenizer, or the model, does not have."""
    vocabulary = tokenizer.get_vocab()
    rows = read_config(Path(options.model_name_or_path or "").expanduser()).get("vocab_size")
    problems = []
    for flag in ("eos_token", "pad_token"):
        token = getattr(options, flag)
        if token is None:
            continue
        why = "" if token in vocabulary else "the tokenizer has no such token"
        if not why and isinstance(rows, int) and vocabulary[token] >= rows:
            number = vocabulary[token]
            why = f"it is number {number:,}, and the model has {rows:,} rows (vocab_size)"
        if why:
            fix = "name one that it has, or leave it out"
            problems.append(Problem(f"--{flag} {token}", why, fix))
    return problems


def _template(options: Arguments) -> list[Problem]:
    template = options.chat_template_path
    if not template or Path(template).expanduser().exists():
        return []
    return [
        Problem(
            f"--chat_template_path {template} does not exist",
            "templates are read from this machine",
            "name a .jinja file, or the folder of a tokenizer",
        )
    ]


def _named_twice(options: Arguments, given: set[str]) -> list[Problem]:
    """Find two flags that say different things of the same."""
    asked, labels = asked_labels(options), vars(options)["local_dataset.labels"]
    problems = []
    if asked and "local_dataset.labels" in given and labels != asked:
        problems.append(
            Problem(
                f"--local_dataset.labels {labels} with TRL's flags of the loss",
                f"--assistant_only_loss and --completion_only_loss ask for {asked}",
                "leave those out",
            )
        )
    if {"dataset_text_field", "local_dataset.columns"} <= given:
        problems.append(
            Problem(
                "--dataset_text_field with --local_dataset.columns",
                "both say which column is the text",
                "leave --dataset_text_field out",
            )
        )
    return problems


def _required(options: Arguments) -> list[Problem]:
    required = [
        (
            options.dataset_name,
            NO_DATA,
            "training needs rows",
            "name a file or folder: --dataset_name ./datasets/openassistant-guanaco",
        ),
        (
            options.output_dir,
            NO_OUTPUT,
            "the model or adapter is saved there",
            "name one: --output_dir DIR",
        ),
    ]
    missing = [Problem(what, why, fix) for value, what, why, fix in required if not value]
    if not options.output_dir:
        return missing
    return missing + check_output_has_no_weights(Path(options.output_dir))


def _numbers(options: Arguments) -> list[Problem]:
    values = {name: getattr(options, name) for name in POSITIVE}
    return [
        problem
        for name, value in values.items()
        if value is not None
        for problem in out_of_range(name, value, ABOVE_0)
    ]


def _ignored(options: Arguments, given: set[str]) -> list[Problem]:
    """Find flags that would be ignored, because what they are about is off."""
    adapter = [name for name in sorted(given) if name.startswith("lora_") or name in ADAPTER_FLAGS]
    packed = [name for name in sorted(given) if name in FLAGS_OF_4BIT]
    problems = []
    if adapter and not options.use_peft:
        problems.append(adapter_is_off(_flags(adapter), _flags(adapter)))
    if packed and not options.load_in_4bit:
        problems.append(
            Problem(
                f"{_flags(packed)} without --load_in_4bit",
                "no weight would be quantised",
                f"add --load_in_4bit, or leave {_flags(packed)} out",
            )
        )
    return problems


def _quantisation(options: Arguments) -> list[Problem]:
    if options.load_in_4bit and options.load_in_8bit:
        return [
            Problem(
                "--load_in_4bit with --load_in_8bit",
                "weights are quantised to 4 bits or to 8",
                "leave --load_in_8bit out",
            )
        ]
    if (options.load_in_4bit or options.load_in_8bit) and not options.use_peft:
        return [untrainable(f"--load_in_{'4' if options.load_in_4bit else '8'}bit")]
    return []


def _targets(options: Arguments) -> list[Problem]:
    wanted = options.lora_target_modules or []
    model = Path(options.model_name_or_path or "").expanduser()
    problems = check_targets(wanted, model, "lora_target_modules")
    if "lm_head" in wanted:
        problems.append(
            Problem(
                "--lora_target_modules lm_head",
                "TRL's loss uses the head's own weight, so an adapter on it is never trained",
                "leave lm_head out",
            )
        )
    return problems


def _precision(options: Arguments) -> list[Problem]:
    on_cpu = options.use_cpu or device_type() == "cpu"
    return [float16_on_cpu("--fp16")] if options.fp16 and on_cpu else []


def _attention(options: Arguments) -> list[Problem]:
    if options.attn_implementation in (None, *ATTENTION):
        return []
    return [
        Problem(
            f"--attn_implementation {options.attn_implementation} is not supported",
            f"choose from {', '.join(ATTENTION)}; kernels on the Hub would have to be downloaded",
            "leave it out, or use --attn_implementation sdpa",
        )
    ]


def _loggers(options: Arguments) -> list[Problem]:
    logger = options.report_to
    if logger not in LOGGERS:
        return [
            Problem(
                f"--report_to {logger}",
                f"choose from {', '.join(LOGGERS)}; other loggers may send data off this machine",
                "use --report_to tensorboard; metrics.jsonl is always written",
            )
        ]
    if logger == "tensorboard":
        return extras.check_installed("tensorboard", "--report_to tensorboard", "tensorboard")
    return []


def _length(options: Arguments) -> list[Problem]:
    positions = model_positions(options.model_name_or_path)
    if positions is None or options.max_length is None or options.max_length <= positions:
        return []
    return [longer_than_model("max_length", options.max_length, positions)]


def _flags(names: list[str]) -> str:
    return " ".join(f"--{name}" for name in names)
