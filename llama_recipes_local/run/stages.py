"""How long a run's stages take, from the imports to the first step; printed as each ends."""

import time

import psutil


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


def seconds_of_process() -> float:
    """Return how long this process has been running."""
    return time.time() - psutil.Process().create_time()
