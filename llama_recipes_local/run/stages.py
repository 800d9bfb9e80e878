"""Times the stages of a run, from the imports to the first step, and prints each as it ends."""

import time
from typing import TextIO


class Stages:
    """Prints the seconds of one stage after another."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def end(self, name: str) -> None:
        """End a stage, and begin the next."""
        now = time.perf_counter()
        print_stage(name, now - self._began)
        self._began = now


def print_stage(name: str, seconds: float) -> None:
    """Print how long a stage took."""
    print(f"--> {name}: {seconds:.1f} s", flush=True)


def print_start(name: str, file: TextIO | None = None) -> None:
    """Print that a stage of some seconds begins, so that the screen is not empty.

    Args:
        name: the stage.
        file: where to; None is standard output.
    """
    print(f"--> {name} ...", file=file, flush=True)
