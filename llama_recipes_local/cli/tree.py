"""Which subcommands there are, known without importing one of them."""

import argparse
from dataclasses import dataclass, field

from llama_recipes_local import __version__
from llama_recipes_local.cli.parsing import Parser, one_of


@dataclass(frozen=True)
class Command:
    """A subcommand, or a group of them.

    Attributes:
        help: what it does, in a few words.
        module: the module of ``llama_recipes_local.commands`` that does it; empty for a group.
        verbatim: whether the module is handed its words as they are, ``--help`` among them.
        commands: a group's subcommands by name.
    """

    help: str
    module: str = ""
    verbatim: bool = False
    commands: dict[str, "Command"] = field(default_factory=dict)


ROOT = Command(
    "Fine-tune Llama models from local folders on local data.",
    commands={
        "prepare": Command(
            "put in place what a run needs",
            commands={
                "grammar": Command("the grammar data set, two CSV files", "prepare.grammar.flags"),
                "stand-in": Command(
                    "a small model to try everything with", "prepare.stand_in.flags"
                ),
            },
        ),
        "inspect": Command(
            "show what the model will see of a data set", "inspect.flags", verbatim=True
        ),
        "finetune": Command(
            "fine-tune a model, as finetuning.py does", "finetune.flags", verbatim=True
        ),
        "merge": Command("merge an adapter into its base model", "merge.flags"),
        "convert": Command("make a model's folder of a sharded checkpoint", "convert.flags"),
        "generate": Command("let a fine-tuned model complete prompts", "generate.flags"),
        "evaluate": Command("measure a model, or compare two", "evaluate.flags", verbatim=True),
    },
)


def choosing_parser(group: Command, name: str) -> Parser:
    """Return the parser of the word that chooses one of a group's commands.

    Args:
        group: the group.
        name: its name on the command line, such as ``llama-recipes-local prepare``.
    """
    width = max(map(len, group.commands))
    lines = [f"  {word:<{width}}  {command.help}" for word, command in group.commands.items()]
    parser = Parser(
        prog=name,
        usage=f"{name} COMMAND ...",
        description=group.help,
        epilog="\n".join(["commands:", *lines, "", f"`{name} COMMAND --help` tells its flags."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if group is ROOT:
        parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "command", metavar="COMMAND", type=one_of(group.commands), help=argparse.SUPPRESS
    )
    return parser
