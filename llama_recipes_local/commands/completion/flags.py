r"""Print a script that completes commands, flags, choices and paths in a shell.

Once for all new shells:

  llama-recipes-local completion bash > \
      ~/.local/share/bash-completion/completions/llama-recipes-local
  llama-recipes-local completion zsh > DIR_OF_FPATH/_llama-recipes-local
  llama-recipes-local completion fish > \
      ~/.config/fish/completions/llama-recipes-local.fish

In bash without its package bash-completion, and in zsh after compinit, the script is read by
source. It has all words in it: no Python runs when a key is pressed.
"""

import argparse

from llama_recipes_local.cli.parsing import one_of

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", type=one_of(SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    from llama_recipes_local.commands.completion.command import script

    print(script(args.shell), end="")
