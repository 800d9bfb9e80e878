"""The tree of subcommands, one line each; none of them is imported for it."""

import argparse
from dataclasses import dataclass, field

from llama_recipes_local import __version__
from llama_recipes_local.cli.parsing import Parser, one_of


@dataclass(frozen=True)
class Command:
    """A subcommand, or a group of them.

    A subcommand is the package of its name in ``llama_recipes_local.commands``: ``prepare
    stand-in`` is ``commands/prepare/stand_in``, with its flags in ``flags.py``.

    Attributes:
        help: what it does, in a few words.
        takes_any_flag: whether it takes the flags of ``finetuning.py`` next to its own.
        verbatim: whether it gets its words unparsed, including ``--help``.
        says_start: whether a line says at once that it begins, as most import much.
        commands: a group's subcommands by name; empty for a subcommand.
    """

    help: str
    takes_any_flag: bool = False
    verbatim: bool = False
    says_start: bool = True
    commands: dict[str, "Command"] = field(default_factory=dict)


ROOT = Command(
    "Fine-tune Llama models from local folders on local data.",
    commands={
        "prepare": Command(
            "prepare a data set, its tokens, or a small model",
            commands={
                "grammar": Command("the grammar data set, two CSV files"),
                "smollm2": Command("SmolLM2-135M-Instruct, a small pretrained model"),
                "stand-in": Command("a small model to try everything with"),
                "tokens": Command(
                    "tokens made in advance, for another machine", takes_any_flag=True
                ),
            },
        ),
        "inspect": Command("show what the model will see of a data set", takes_any_flag=True),
        "what-to-bring": Command("list what a machine without a network needs"),
        "check": Command("check a copied folder, file by file"),
        "doctor": Command("report what this machine has and lacks", takes_any_flag=True),
        "plan": Command("predict what a run will take, and what fits", takes_any_flag=True),
        "recipes": Command("list settings that --config takes by name, or print one"),
        "finetune": Command("fine-tune a model, as finetuning.py does", verbatim=True),
        "merge": Command("merge an adapter into its base model"),
        "convert": Command("convert a checkpoint or a GGUF file to a model folder"),
        "generate": Command("complete prompts with a fine-tuned model"),
        "export": Command("write a model for llama.cpp, Ollama or vLLM"),
        "report": Command("write a page about one run, or several side by side"),
        "evaluate": Command("measure a model, or compare two", takes_any_flag=True),
        "replay": Command("reproduce a result and compare it", takes_any_flag=True),
        "completion": Command("print a shell's script that completes these", says_start=False),
    },
)

# what other programs call a command
ELSEWHERE = {
    "chat": "generate --chat",
    "download": "what-to-bring",
    "help": "--help",
    "inference": "generate",
    "quantize": "export",
    "sft": "finetune",
    "tokenize": "prepare tokens",
    "train": "finetune",
}


def group_parser(group: Command, name: str) -> Parser:
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
        epilog="\n".join(["commands:", *lines, "", f"`{name} COMMAND --help` lists its flags."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if group is ROOT:
        parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "command",
        metavar="COMMAND",
        type=_root_command if group is ROOT else one_of(group.commands),
        help=argparse.SUPPRESS,
    )
    return parser


def _root_command(word: str) -> str:
    if word in ELSEWHERE:
        raise argparse.ArgumentTypeError(f"unknown name {word!r}; did you mean {ELSEWHERE[word]}?")
    return one_of(ROOT.commands)(word)
