"""Whether this Python can run the scripts of a checkout; it imports nothing that may be missing."""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("finetuning.py", "sft.py")
NEEDED = ("fire", "torch", "transformers", "peft", "accelerate", "datasets")


def check_packages() -> None:
    """End a script in one line if this Python lacks what the package imports.

    A system's Python does, where ``make`` has installed all into an environment.

    Raises:
        SystemExit: with code 2, after the line is printed.
    """
    script = Path(getattr(sys.modules.get("__main__"), "__file__", None) or ".").resolve()
    if script.parent != ROOT or script.name not in SCRIPTS:
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
