"""Whether this Python can run the scripts of a checkout; it imports nothing that may be missing."""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("finetuning.py", "sft.py")
OLDEST = (3, 10)
NEEDED = ("fire", "torch", "transformers", "peft", "accelerate", "datasets")


def check_version() -> None:
    """Refuse a Python that cannot read the package's modules; called before they are imported.

    Raises:
        SystemExit: in a script of a checkout, with code 2, after a line is printed.
        ImportError: elsewhere.
    """
    if sys.version_info >= OLDEST:
        return
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"{sys.executable} is Python {version}, and llama_recipes_local needs 3.10 or newer"
    script = _script()
    if script is None:
        raise ImportError(text)
    own = ROOT / ".venv/bin/python"
    newer = "python3.10, or a newer one, in place of python"
    python = shlex.quote(str(own)) if own.exists() else newer
    print(f"{script.name}: {text}; run it with {python}", file=sys.stderr)
    raise SystemExit(2)


def check_packages() -> None:
    """Exit with one line if a needed package, or the working directory, is missing.

    The system's Python lacks packages where ``make`` has installed them into ``.venv``.

    Raises:
        SystemExit: with code 2, after the line is printed.
    """
    script = _script()
    if script is None:
        return
    check_working_directory()
    if missing := missing_packages():
        fix = with_packages(shlex.quote(str(script)))
        print(f"{script.name}: {sys.executable} has no {missing}; run {fix}", file=sys.stderr)
        raise SystemExit(2)


def missing_packages() -> str:
    """Return the packages that this Python lacks and everything needs; empty if there is none."""
    return ", ".join(name for name in NEEDED if find_spec(name) is None)


def with_packages(words: str) -> str:
    """Return the fix for missing packages: the checkout's own Python with words, or pip."""
    install = shlex.join([sys.executable, "-m", "pip", "install", str(ROOT)])
    own = ROOT / ".venv/bin/python"
    if not own.exists() or str(own) == sys.executable:
        return install
    return f"{shlex.quote(str(own))} {words}, or {install}"


def check_working_directory() -> None:
    """Refuse to work in a folder that was removed: torch ends the process when it is imported.

    Raises:
        SystemExit: with code 2, after a line is printed.
    """
    if _working_directory_exists():
        return
    print(
        "the working directory of this shell was removed; cd to a folder that exists (or to the "
        "same one, if it was made again), and run the command again",
        file=sys.stderr,
    )
    raise SystemExit(2)


def why_compiled_each_time(module: ModuleType) -> "str | None":
    """Return why the bytecode of a module that was imported is not kept, and the fix.

    Containers often have packages without bytecode and a Python that writes none; then each start
    compiles thousands of files. None if the bytecode is there.
    """
    cached = module.__spec__ and module.__spec__.cached
    if not cached or os.path.exists(cached):
        return None
    why, fix = f"{os.path.dirname(cached)} cannot be written", ""
    if sys.dont_write_bytecode:
        by_variable = "PYTHONDONTWRITEBYTECODE" in os.environ
        why = "PYTHONDONTWRITEBYTECODE is set" if by_variable else "Python was started with -B"
        fix = "unset PYTHONDONTWRITEBYTECODE" if by_variable else "leave -B out"
    folder = os.path.dirname(module.__file__ or cached)
    if not sys.pycache_prefix and not os.access(folder, os.W_OK):
        fix = " and ".join(filter(None, [fix, "export PYTHONPYCACHEPREFIX=~/.cache/pycache"]))
    return f"{why}; {fix}" if fix else why


def _working_directory_exists() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _script() -> "Path | None":
    """Return the script of a checkout that is running; None if it is another."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file or (not _working_directory_exists() and not os.path.isabs(file)):
        return None
    script = Path(file).resolve()
    return script if script.parent == ROOT and script.name in SCRIPTS else None
