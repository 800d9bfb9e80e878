"""The script for bash, 4.4 and newer; it needs nothing of the package bash-completion."""

import shlex
from collections.abc import Iterator, Sequence

from llama_recipes_local.commands.completion.completed_words import Completed, Flag, Value

_SCRIPT = r"""# Completes llama-recipes-local in bash; by `llama-recipes-local completion bash`.

# Sets what can follow a command: words, flags, files.
_llama_recipes_local_after() {
    words= flags= files=
    case $1 in
@AFTER@
    esac
}

# Sets what can follow a flag of a command; fails where it takes no value.
_llama_recipes_local_value() {
    words= files=
    case "$1 $2" in
@VALUES@
    esac
    case $1 in
    @ANY@) ;;
    *) return 1 ;;
    esac
    case $2 in
@ANY_VALUES@
    *) return 1 ;;
    esac
}

_llama_recipes_local() {
    local current=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]}
    local at= words flags files position
    local IFS=$' \t\n' # by which compgen splits words, whatever the shell's own is
    if [[ $current == = ]]; then # bash splits --flag=value at the sign
        current=
    elif [[ $flag == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((position = 1; position < COMP_CWORD; position++)); do
        case "${at:+$at }${COMP_WORDS[position]}" in
        @NAMES@) at+=${at:+ }${COMP_WORDS[position]} ;;
        *) break ;;
        esac
    done
    if [[ $flag != -* ]] || ! _llama_recipes_local_value "$at" "$flag"; then
        _llama_recipes_local_after "$at"
        if [[ $current == -* || ! $words$files ]]; then
            words=$flags files=
        fi
    fi
    mapfile -t COMPREPLY < <(
        compgen -W "$words" -- "$current"
        [[ ! $files ]] || compgen -f -- "$current"
    )
    [[ ! $files ]] || compopt -o filenames 2> /dev/null
}

complete -F _llama_recipes_local llama-recipes-local
"""


def bash_script(commands: Sequence[Completed], any_flags: Sequence[Flag]) -> str:
    """Return the script.

    Args:
        commands: all commands.
        any_flags: the flags that some of them take beside their own.
    """
    takers = [each.name for each in commands if each.takes_any_flag]
    names = [each.name for each in commands if each.name]
    parts = {
        "AFTER": _after(commands, any_flags),
        "VALUES": (
            line
            for each in commands
            for flag in each.flags
            for line in _value(flag, f"{each.name} ")
        ),
        "ANY_VALUES": (line for flag in any_flags for line in _value(flag)),
        "ANY": [" | ".join(map(shlex.quote, takers))],
        "NAMES": [" | ".join(map(shlex.quote, names))],
    }
    text = _SCRIPT
    for name, lines in parts.items():
        text = text.replace(f"@{name}@", "\n".join(lines))
    return text


def _after(commands: Sequence[Completed], any_flags: Sequence[Flag]) -> Iterator[str]:
    for each in commands:
        flags = [*each.flags, *(any_flags if each.takes_any_flag else ())]
        names = dict.fromkeys(name for flag in flags for name in flag.names)
        argument = each.argument or Value()
        words = " ".join([*each.commands, *argument.words])
        yield f"    {shlex.quote(each.name)})"
        yield f"        words={shlex.quote(words)} files={'yes' if argument.is_path else ''}"
        yield f"        flags={shlex.quote(' '.join(names))}"
        yield "        ;;"


def _value(flag: Flag, before: str = "") -> Iterator[str]:
    if flag.value is None:
        return
    names = " | ".join(shlex.quote(before + name) for name in flag.names)
    words = f"words={shlex.quote(' '.join(flag.value.words))}; " if flag.value.words else ""
    files = "files=yes; " if flag.value.is_path else ""
    yield f"    {names}) {words}{files}return ;;"
