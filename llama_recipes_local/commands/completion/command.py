"""Which shell's script is made."""

from llama_recipes_local.commands.completion.bash_script import bash_script
from llama_recipes_local.commands.completion.completed_words import completed, finetuning_flags
from llama_recipes_local.commands.completion.fish_script import fish_script
from llama_recipes_local.commands.completion.zsh_script import zsh_script


def script(shell: str) -> str:
    """Return the script for a shell, one of ``SHELLS``."""
    made = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell]
    return made([*completed()], finetuning_flags())
