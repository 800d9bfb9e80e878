"""The words of ``sft.py``'s command line as flags, and older names for them as those of today."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llama_recipes_local.errors import Problem

# What TRL's script, or transformers, called a flag before, and what it is called now.
RENAMED = {
    "model_name": "model_name_or_path",
    "batch_size": "per_device_train_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "seq_length": "max_length",
    "max_seq_length": "max_length",
    "peft_lora_r": "lora_r",
    "peft_lora_alpha": "lora_alpha",
    "torch_dtype": "dtype",
    "evaluation_strategy": "eval_strategy",
    "log_with": "report_to",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
}
_OFF = ("false", "0", "no", "n", "f")


@dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Attributes:
        name: its name, without dashes in front, with underscores inside.
        values: the words that it was given.
    """

    name: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"--{self.name}", *self.values])

    @property
    def is_off(self) -> bool:
        """Whether it says no to what it names."""
        return len(self.values) == 1 and self.values[0].lower() in _OFF

    @property
    def words(self) -> list[str]:
        """The words that argparse takes; a value that begins with a dash stays a value."""
        if len(self.values) == 1:
            return [f"--{self.name}={self.values[0]}"]
        return [f"--{self.name}", *self.values]


def read_flags(words: Sequence[str]) -> tuple[list[Flag], list[Problem]]:
    """Return the flags that the words make up, and a problem for each word that is of none."""
    flags: list[Flag] = []
    problems: list[Problem] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, given, value = word[2:].partition("=")
            flags.append(Flag(name.replace("-", "_"), (value,) if given else ()))
        elif flags:
            flags[-1] = replace(flags[-1], values=(*flags[-1].values, word))
        else:
            problems.append(
                Problem(
                    f"{word!r} stands on the command line without a flag",
                    "every setting has a flag",
                    "write --flag value; a value with spaces goes in quotes",
                )
            )
    return flags, problems


def renamed(flags: Iterable[Flag]) -> tuple[list[Flag], list[str]]:
    """Return the flags under today's names, and a line on each that had another.

    Where both names are given, today's counts.
    """
    flags = list(flags)
    given = {flag.name: flag for flag in flags}
    kept: list[Flag] = []
    notes: list[str] = []
    for flag in flags:
        name = RENAMED.get(flag.name)
        if name is None:
            kept.append(flag)
        elif name in given:
            notes.append(
                f"--> {flag} is left out: it is an older name of --{name}, which is given too; "
                f"{given[name]} counts"
            )
        else:
            notes.append(f"--> {flag} is read as --{name}, its name today")
            kept.append(replace(flag, name=name))
    return kept, notes
