"""Whether this Python can run the scripts of a checkout; it imports nothing that may be missing."""

import sys
from importlib.util import find_spec
from pathlib import Path

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
    python = own if own.exists() else "python3.10, or a newer one, in place of python"
    print(f"{script.name}: {text}; run it with {python}", file=sys.stderr)
    raise SystemExit(2)


def check_packages() -> None:
    """End a script in one line if this Python lacks what the package imports.

    A system's Python does, where ``make`` has installed all into an environment.

    Raises:
        SystemExit: with code 2, after the line is printed.
    """
    script = _script()
    if script is None:
        return
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return
    own = ROOT / ".venv/bin/python"
    other = f"{own} {script}, or " if own.exists() and str(own) != sys.executable else ""
    print(
        f"{script.name}: {sys.executable} has no {', '.join(missing)}; "
        f"run {other}{sys.executable} -m pip install {ROOT}",
        file=sys.stderr,
    )
    raise SystemExit(2)


def _script() -> "Path | None":
    """Return the script of a checkout that is running; None if it is another."""
    script = Path(getattr(sys.modules.get("__main__"), "__file__", None) or ".").resolve()
    return script if script.parent == ROOT and script.name in SCRIPTS else None
