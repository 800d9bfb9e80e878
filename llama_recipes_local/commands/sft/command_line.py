"""Splits the command line of ``sft.py`` into flags, and renames flags that TRL has renamed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llama_recipes_local.errors import Problem

# former names in TRL's script or transformers, and the current ones
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
        name: without leading dashes, with underscores.
        values: the words after it.
    """

    name: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"--{self.name}", *self.values])

    @property
    def is_off(self) -> bool:
        """Whether its value is false."""
        return len(self.values) == 1 and self.values[0].lower() in _OFF

    @property
    def words(self) -> list[str]:
        """The flag for argparse, in a form in which a value may begin with a dash."""
        if len(self.values) == 1:
            return [f"--{self.name}={self.values[0]}"]
        return [f"--{self.name}", *self.values]


def read_flags(words: Sequence[str]) -> tuple[list[Flag], list[Problem]]:
    """Return the flags, and a problem for each word before the first flag."""
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
                    f"unexpected argument {word!r}",
                    "it belongs to no flag",
                    "write --flag value; put a value with spaces in quotes",
                )
            )
    return flags, problems


def rename(flags: Iterable[Flag]) -> tuple[list[Flag], list[str]]:
    """Return the flags under their current names, and a note for each that was renamed.

    If both names are given, the current one is used.
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
                f"--> {flag} is ignored: it is the former name of --{name}, which is given too; "
                f"{given[name]} is used"
            )
        else:
            notes.append(f"--> {flag} is read as --{name}, its current name")
            kept.append(replace(flag, name=name))
    return kept, notes
