"""``main``, the fine-tuning command: flags as they were typed, ``--help``, exit codes.

Nothing that takes long is imported here, so that ``--help`` and the first line of output are
immediate.
"""

from typing import Any

import fire
from fire.decorators import SetParseFn

from llama_recipes_local import launch
from llama_recipes_local._upstream import fall_back
from llama_recipes_local.api.logged_run import finetune_logged
from llama_recipes_local.console import (
    EndedRun,
    exit_on_broken_pipe,
    printable_output,
    report_failure,
)
from llama_recipes_local.errors import UsageError
from llama_recipes_local.typed_words import Typed, as_typed


@SetParseFn(Typed)  # each flag is converted by its field's type
def main(*arguments: Any, **flags: Any) -> None:
    """Fine-tune a Llama from a local folder on local data.

    Flags are the fields of upstream's configurations and of this package's; ``--help`` lists them.
    Prefix a flag with the name of a configuration to set its field alone, as in
    ``--grammar_dataset.train_split=FILE``.
    """
    finetune(*as_typed(arguments, flags))


@printable_output()
def finetune(arguments: tuple[Any, ...], flags: dict[str, Any]) -> None:
    """Do what ``main`` does.

    Args:
        arguments: words of the command line without a flag.
        flags: the flags, by name: their text, or what Python passed.

    Raises:
        SystemExit: with its exit code, if the run fails or is stopped.
    """
    # fire passes --help on, because any flag may be ours, and -h as a flag named h
    if flags.keys() & {"help", "h"}:
        with exit_on_broken_pipe():
            _print_help()
        raise SystemExit(0)
    try:
        finetune_logged(arguments, flags, say=lambda ended, log: ended.say())
    except EndedRun as ended:
        raise SystemExit(ended.failure.code) from None
    except UsageError as error:  # two at a time, from threads
        raise SystemExit(report_failure(error)) from None


def _print_help() -> None:
    from llama_recipes_local.preflight.help import help_text

    if launch.rank() == 0:
        print(help_text())


def __getattr__(name: str) -> Any:
    """Return a name of the run's, or of upstream's module."""
    if not name.startswith("__"):
        from llama_recipes_local import finetuning_run

        if hasattr(finetuning_run, name):
            return getattr(finetuning_run, name)
    return fall_back("finetuning")(name)


if __name__ == "__main__":
    fire.Fire(main)
