"""Makes large imports faster: work that they would do in vain is skipped or deferred."""

import gc
import importlib.metadata
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from llama_recipes_local.extras import distributions_of
from llama_recipes_local.library_patches import COMPILED_FUNCTIONS, MODEL_LIST

DEFERRED = {"scipy.optimize": "linear_sum_assignment", "sklearn.metrics": "roc_curve"}
"""Functions that transformers' losses of vision models and its generation import, by module."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Make the imports in the ``with`` block faster."""
    with ExitStack() as stack:
        enter = (ended_by_ctrl_c, without_collector, packages_looked_up_once, imported_when_called)
        for each in enter:
            stack.enter_context(each())
        begins = _Beginnings(stack)
        sys.meta_path.insert(0, begins)
        stack.callback(sys.meta_path.remove, begins)
        yield


class _Beginnings(MetaPathFinder):
    """An import hook that finds nothing itself, but prepares the import of some modules."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:  # Python's own
        if fullname == "transformers.models":
            list_models_once()
        elif fullname == "bitsandbytes":
            self.stack.enter_context(compiled_when_called())


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C end the block, whatever its imports make of it.

    torch's import of numpy goes on without it, half done, and fails somewhere else.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception as error:
        if pressed.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


@contextmanager
def without_collector() -> Iterator[None]:
    """Switch the garbage collector off in the block: imports leave almost no garbage.

    Looking for it took a fifth of their time. If torch was not imported before, the objects that
    exist at the end of the block are never looked at again. Otherwise the process may hold models,
    which must be collected once they are garbage.
    """
    enabled, imports_all = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if imports_all:
            gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def packages_looked_up_once() -> Iterator[None]:
    """Make ``packages_distributions`` fast: transformers before 5.23 calls it at import."""
    ask_python = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = distributions_of
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = ask_python


@contextmanager
def imported_when_called() -> Iterator[None]:
    """Defer imports of modules of which only one, rarely called function is needed."""
    deferred = {name: _Deferred(name) for name in DEFERRED if name not in sys.modules}
    try:
        sys.modules.update(deferred)
        yield
    finally:
        for name, module in deferred.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Deferred(ModuleType):
    """A placeholder for a module, which is imported when it is needed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name != DEFERRED[self.__name__]:
            return getattr(self._imported(), name)

        def call(*args: Any, **kwargs: Any) -> Any:  # the function's own
            return getattr(self._imported(), name)(*args, **kwargs)

        return call

    def _imported(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)


def list_models_once() -> None:
    """Have transformers scan the files of all its models once instead of twice.

    It scans them for the path of their folder, and again for the path of a file in it.
    """
    if "transformers.models" in sys.modules:
        return
    from transformers.utils import import_utils

    MODEL_LIST.check()
    read = import_utils.create_import_structure_from_path

    def read_folder(path: str | Path) -> Any:  # transformers' own structure
        return read(Path(path).parent if Path(path).is_file() else Path(path))

    import_utils.create_import_structure_from_path = read_folder  # type: ignore[assignment]


@contextmanager
def compiled_when_called() -> Iterator[None]:
    """Compile functions decorated with ``torch.compile`` in the block at their first call.

    bitsandbytes, which PEFT imports, has some for devices without kernels of its own.
    """
    import torch

    COMPILED_FUNCTIONS.check()
    compile_now = torch.compile
    try:
        _set_compile(partial(_compile_later, compile_now))
        yield
    finally:
        _set_compile(compile_now)


def _set_compile(function: Callable[..., Any]) -> None:
    import torch

    torch.compile = function


# Any: functions of any arguments, decorated with any of torch.compile's options
def _compile_later(compile_now: Any, function: Any = None, **options: Any) -> Any:
    if function is None:
        return partial(_compile_later, compile_now, **options)
    if not inspect.isfunction(function):
        return compile_now(function, **options)
    compiled: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        compiled = compiled or compile_now(function, **options)
        return compiled(*args, **kwargs)

    return call
