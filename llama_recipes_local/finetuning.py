"""``main``, the fine-tuning command: a first word, then the imports, then ``finetuning_run``.

Nothing that takes long is imported here, so that ``--help`` and the first word are immediate.
"""

import sys
from types import ModuleType
from typing import Any

import fire
from fire.decorators import SetParseFn

from llama_recipes_local import launch
from llama_recipes_local._python import why_compiled_each_time
from llama_recipes_local._upstream import fall_back
from llama_recipes_local.console import exit_on_broken_pipe, printable_output, report_failure
from llama_recipes_local.extras import compiled_when_called
from llama_recipes_local.run.log import logged_output
from llama_recipes_local.run.stages import Stages, print_start
from llama_recipes_local.storage.read_ahead import read_ahead
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
        SystemExit: with the exit code of a run that ends otherwise than well.
    """
    # fire passes --help on, because any flag may be ours, and -h as a flag named h
    if flags.keys() & {"help", "h"}:
        with exit_on_broken_pipe():
            _print_help()
        raise SystemExit(0)
    if launch.local_rank() == 0:
        read_ahead(flags.get("model_name"))
    with logged_output() as log:
        try:
            with exit_on_broken_pipe():
                finetuning_run = _import_run()
        except KeyboardInterrupt as error:
            raise SystemExit(report_failure(error)) from None
        finetuning_run.finetune(arguments, flags, log)


def _print_help() -> None:
    from llama_recipes_local.preflight.help import help_text

    if launch.rank() == 0:
        print(help_text())


def _import_run() -> ModuleType:
    """Import the run, with a word before and the seconds after it, unless that was done before."""
    first = "llama_recipes_local.finetuning_run" not in sys.modules and launch.rank() == 0
    stages = Stages()
    if first:
        print_start("imports")
    with compiled_when_called():
        from llama_recipes_local import finetuning_run

    if first:
        stages.end("imports")
        if why := why_compiled_each_time(sys.modules["torch"]):
            print(f"--> imports were compiled from source, as at each start: {why}")
    return finetuning_run


def __getattr__(name: str) -> Any:
    """Return a name of the run's, or of upstream's module."""
    if not name.startswith("__"):
        from llama_recipes_local import finetuning_run

        if hasattr(finetuning_run, name):
            return getattr(finetuning_run, name)
    return fall_back("finetuning")(name)


if __name__ == "__main__":
    fire.Fire(main)
