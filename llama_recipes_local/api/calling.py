"""``finetune``: starts a run from Python, with the flags of the command, and returns a result."""

import gc
import os
import sys
from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from llama_recipes_local.api.flag_types import RunFlags
from llama_recipes_local.api.logged_run import finetune_logged
from llama_recipes_local.api.result import Result
from llama_recipes_local.console import EndedRun, ignore_broken_pipe, printable_output
from llama_recipes_local.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def finetune(*, num_processes: int = 1, **flags: "Unpack[RunFlags]") -> Result:
    """Fine-tune a Llama from a local folder on local data, and return how it went.

    The flags are those of ``finetuning.py``; ``finetuning.py --help`` lists them. A flag of one
    configuration alone is given in a dictionary: ``grammar_dataset={"train_split": FILE}``.

    Args:
        num_processes: ranks that are started on this machine, as torchrun does, for
            ``enable_fsdp=True``; in a script that torchrun started it stays 1.
        **flags: the flags, as values of Python: numbers, booleans, texts, paths, lists.

    Raises:
        UsageError: if it cannot work, before anything is loaded; ``problems`` has each reason.
        TrainingError: if training stops; ``InterruptedRun`` if a signal or Ctrl-C has stopped it,
            and it was saved.
        KeyboardInterrupt: at Ctrl-C outside of training, or at a second one.
    """
    plain = _plain(flags)
    if num_processes != 1:
        from llama_recipes_local.api.launching import finetune_launched

        return finetune_launched(num_processes, plain)
    try:
        with printable_output(), ignore_broken_pipe():
            run = finetune_logged((), plain, lambda ended, log: log.write(f"{ended}\n"), True)
            result = Result.of(run)
            del run
    except EndedRun as ended:
        error = _error(ended)
    else:
        _free_memory()
        return result
    _free_memory()
    raise error from error.__cause__


# notebooks complete the names of parameters, and do not know Unpack
finetune.__dict__["__signature__"] = Signature(
    [
        Parameter(name, Parameter.KEYWORD_ONLY, default=...)
        for name in ("num_processes", *RunFlags.__annotations__)
    ],
    return_annotation=Result,
)


def _plain(flags: Mapping[str, object]) -> dict[str, Any]:
    """Return the flags as a command line has them: paths as text, dictionaries as A.B."""
    plain: dict[str, Any] = {}
    for name, value in flags.items():
        if isinstance(value, Mapping):
            plain |= _plain({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            plain[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return plain


def _error(ended: EndedRun) -> BaseException:
    """Return the exception that Python gets from an ended run, without references to its frames.

    A notebook keeps the last exception, and the frames would keep the model in memory.
    """
    error = ended.__cause__
    assert error is not None
    if not isinstance(error, (UsageError, TrainingError, KeyboardInterrupt)):
        stopped = TrainingError(ended.failure.text)
        stopped.__cause__, error = error, stopped
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _free_memory() -> None:
    """Free the memory of a run at once; models are parts of reference cycles."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
