"""Resolves the flags of ``sft.py`` and reports every problem before any weight is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from llama_recipes_local.commands.sft import sft_rules, trl_dataset
from llama_recipes_local.commands.sft.choices import choose
from llama_recipes_local.commands.sft.command_line import Flag, read_flags
from llama_recipes_local.commands.sft.config_flags import usable
from llama_recipes_local.commands.sft.flags import (
    Arguments,
    LocalArguments,
    TrainingArguments,
    build,
    parse,
)
from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.models.loading import local_folder
from llama_recipes_local.preflight import (
    earlier_results,
    launch_rules,
    machine,
    model,
    stored_model_rules,
)
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve

CONFIGURATION_FILE = "sft_config.json"


@dataclass
class SftRun:
    """A run of ``sft.py``, resolved and checked.

    Attributes:
        local: the flags that TRL does not have.
        training: the trainer's configuration, of TRL.
        model: the configuration of the model, its adapter and its quantisation, of TRL.
        tokenizer: the model's.
        run: the run of ``finetuning.py`` on the same model and data.
        parts: the parts of the data that are read: that for validation only if the run evaluates.
        changes_tokenizer: whether flags give the tokenizer another template or special token.
        words: those of the command line.
        flags: they and the automatic choices, by the current names.
    """

    local: LocalArguments
    training: TrainingArguments
    model: ModelConfig
    tokenizer: PreTrainedTokenizerBase
    run: Run
    parts: tuple[Part, ...]
    changes_tokenizer: bool
    words: tuple[str, ...]
    flags: list[Flag]

    @property
    def dataset(self) -> local_dataset:
        """Which data is read, and how."""
        assert isinstance(self.run.dataset, local_dataset)
        return self.run.dataset


def preflight(words: Sequence[str]) -> SftRun:
    """Resolve the command line and check what can be checked without loading weights.

    Prints which flags were renamed, and the automatic choices.

    Raises:
        UsageError: with every problem found.
    """
    flags, notes, of_flags = _read(words)
    given = {flag.name.removeprefix("no_") for flag in flags}
    options = parse(flags)
    choices = choose(options, given)
    flags += [choice.flag for choice in choices]
    options = parse(flags)

    run = _as_finetuning(options, given)
    problems = sft_rules.check_options(options, given) + sft_rules.check_machine(options)
    problems += model.check_model(run) + stored_model_rules.check_stored_weights(run)
    problems += machine.check_output(run)
    problems += earlier_results.check_names_are_free(run, CONFIGURATION_FILE)
    problems += launch_rules.check_environment(run)
    problems += launch_rules.check_devices(run) + machine.check_packages(run)
    tokenizer = None
    if options.model_name_or_path and not model.check_tokenizer(run):
        tokenizer = _tokenizer(options)
    parts = trl_dataset.parts_of(options)
    problems += sft_rules.check_tokens(options, tokenizer) if tokenizer else []
    problems += _check_data(options, run, parts, tokenizer)
    problems = of_flags + sft_rules.without_misnamed(problems, of_flags)
    if problems or tokenizer is None:
        raise UsageError(list(dict.fromkeys(problems)))
    print("\n".join([*notes, *map(str, choices)]))
    local, training, model_config = _build(flags)
    # the rows are tokenised with this template, and have these labels
    training.chat_template_path = None
    training.assistant_only_loss = training.completion_only_loss = False
    model_config.model_name_or_path = str(local_folder(options.model_name_or_path))
    changed = bool(options.chat_template_path or options.eos_token or options.pad_token)
    return SftRun(
        local, training, model_config, tokenizer, run, parts, changed, tuple(words), flags
    )


def _read(words: Sequence[str]) -> tuple[list[Flag], list[str], list[Problem]]:
    """Return the valid flags under their current names, notes on renamed ones, and problems."""
    flags, problems = read_flags(words)
    flags, notes, wrong = usable(flags)
    return flags, notes, problems + wrong


def _as_finetuning(options: Arguments, given: set[str]) -> Run:
    """Return the same run of ``finetuning.py``, for the checks that both share."""
    return resolve(
        {
            "model_name": options.model_name_or_path or "",
            "output_dir": options.output_dir or ".",
            "batching_strategy": "padding",
            "use_peft": options.use_peft,
            "attn_implementation": options.attn_implementation or "auto",
            **({"quantization": "4bit"} if options.load_in_4bit else {}),
            **({"quantization": "8bit"} if options.load_in_8bit else {}),
            **trl_dataset.data_flags(options, given),
        }
    )


def _tokenizer(options: Arguments) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer with the chat template and the end token that are trained."""
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    if options.eos_token in tokenizer.get_vocab():
        tokenizer.eos_token = options.eos_token
    template = Path(options.chat_template_path or "").expanduser()
    if options.chat_template_path and template.is_file():
        tokenizer.chat_template = template.read_text("utf-8")
    elif options.chat_template_path and template.is_dir():
        other = AutoTokenizer.from_pretrained(str(template))
        tokenizer.chat_template = other.chat_template
        known, written = tokenizer.get_vocab(), str(other.chat_template)
        tokens = other.get_added_vocab()
        missing = [each for each in tokens if each in written and each not in known]
        if missing:
            raise refusal(
                f"--chat_template_path {options.chat_template_path} writes tokens of its tokenizer",
                f"the model's tokenizer does not have {', '.join(missing)}",
                "name a template that it has the tokens for: --chat_template_path FILE",
            )
    return tokenizer


def _check_data(
    options: Arguments, run: Run, parts: tuple[Part, ...], tokenizer: PreTrainedTokenizerBase | None
) -> list[Problem]:
    """Return the problems with the data, and with flags that do not suit it.

    Prints how the data is read.
    """
    if not options.dataset_name:
        return []
    assert isinstance(run.dataset, local_dataset)
    problems = trl_dataset.check_rows(run.dataset, parts, tokenizer)
    return problems or sft_rules.check_labels(options, trl_dataset.layout_of(run.dataset))


def _build(flags: list[Flag]) -> tuple[LocalArguments, TrainingArguments, ModelConfig]:
    try:
        return build(flags)
    except (ValueError, ImportError) as error:
        why = " ".join(str(error).split())
        fix = "change or leave out the flag that it names"
        raise refusal("flags that exclude each other", why, fix) from error
