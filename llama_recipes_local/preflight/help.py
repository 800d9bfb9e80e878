"""``finetuning.py --help``: every flag with its default and its meaning."""

import textwrap
from collections.abc import Iterator

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import Facts, defaults, descriptions, facts
from llama_recipes_local.screen import COLUMNS

INTRODUCTION = """\
usage: finetuning.py --model_name DIR --dataset NAME|PATH [--use_peft]
                     [--FLAG VALUE ...]
       torchrun --nproc_per_node N finetuning.py --enable_fsdp ...

Fine-tune a Llama from a local folder on local data. Defaults are in
parentheses. A flag that is on or off needs no value; --FLAG False turns it
off. A flag sets the field of its name in every configuration that has one;
write --CONFIGURATION.FIELD for a single one, as for the data sets below.
"""


def sections() -> dict[type, str]:
    """Return the titles of all configurations but the data sets'."""
    default = configs.train_config.peft_method
    methods = {}
    for name, method in METHODS.items():
        chosen = "" if name == default else f" --peft_method {name}"
        methods[method.config] = f"{method.title} (--use_peft{chosen})"
    return {
        configs.train_config: "Training",
        configs.fsdp_config: "Several ranks (--enable_fsdp)",
        **methods,
        configs.quantization_config: "4-bit weights (--use_peft --quantization 4bit)",
    }


def help_text() -> str:
    """Return what ``--help`` prints."""
    return "\n".join([INTRODUCTION, *(_section(*each) for each in listed_flags())])


def listed_flags() -> Iterator[tuple[str, type, dict[str, str], str]]:
    """Yield each section's title, configuration, fields with their texts, and prefix."""
    listed = set[str]()
    for cls, title in sections().items():
        flags = {flag: text for flag, text in descriptions(cls).items() if flag not in listed}
        yield title, cls, flags, ""
        listed |= flags.keys()
    for name, dataset in DATASETS.items():
        cls = dataset.config
        yield f"--dataset {name}", cls, descriptions(cls), f"{name}."


def _section(title: str, config: type, flags: dict[str, str], owner: str) -> str:
    lines, known, values = [f"{title}:"], facts(config), defaults(config)
    for flag, text in flags.items():
        lines.append(f"  --{owner}{flag}{_default(values[flag])}")
        plain = text.replace("``", "") + _choices(text, known[flag])
        lines += textwrap.wrap(plain, COLUMNS, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, ""])


def _choices(text: str, known: Facts) -> str:
    """Return a field's choices as a sentence, unless its docstring explains them.

    A docstring that quotes words explains them. It is looked at first, because the module that
    declares the choices may take long to import.
    """
    if '"' in text:
        return ""
    names = [name for name in known.choices.values if name] if known.choices else []
    if len(names) < 2 or any(str(name) in text for name in names):
        return ""
    return f" One of {', '.join(map(str, names))}."


def _default(value: object) -> str:
    """Return a default as it is written in a flag; nothing for an empty one."""
    if value in (None, "", []):
        return ""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return f" ({value})"
