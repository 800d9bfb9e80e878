"""How this process was launched: alone, or as one of several ranks, by torchrun's variables.

The variables count only if all of them are set. Some launchers and notebooks leave a part of them
behind; that does not make this process a rank, and preflight refuses it, see ``find_problems``.
"""

import os
import re
from dataclasses import dataclass

from llama_recipes_local.errors import Problem

# those that number the ranks, and those that say where they meet
NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
VARIABLES = (*NUMBERS, "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """A process among those that train together.

    Attributes:
        rank: its number among all, from 0.
        local_rank: its number among those of its host.
        world_size: how many there are.
        host: where the first rank, or torchrun, listens.
        port: on which port.
    """

    rank: int
    local_rank: int
    world_size: int
    host: str
    port: int


def launch() -> Launch | None:
    """Return what torchrun's variables say; None without all of them, or if they cannot be."""
    return None if find_problems() else _read()


def rank() -> int:
    """Return this process's number among all ranks; 0 if it is alone."""
    launched = launch()
    return launched.rank if launched else 0


def local_rank() -> int:
    """Return this process's number among the ranks of its host; 0 if it is alone."""
    launched = launch()
    return launched.local_rank if launched else 0


def world_size() -> int:
    """Return how many ranks were launched; 1 if this process is alone."""
    launched = launch()
    return launched.world_size if launched else 1


def ranks_of_host() -> int:
    """Return how many ranks were launched on this host; all of them where nothing says so."""
    number = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(number) if re.fullmatch("[1-9][0-9]{0,8}", number) else world_size()


def is_by_torchrun() -> bool:
    """Return whether torchrun itself is the parent, and not a script that sets its variables."""
    return "TORCHELASTIC_RUN_ID" in os.environ and launch() is not None


def find_problems() -> list[Problem]:
    """Return why torchrun's variables cannot be followed; they may be absent altogether.

    Where ranks meet says nothing by itself: ``MASTER_ADDR`` and ``MASTER_PORT`` may be set for a
    torchrun that is yet to be started.
    """
    present = [name for name in VARIABLES if os.environ.get(name)]
    if not set(present) & set(NUMBERS):
        return []
    given = " ".join(f"{name}={os.environ[name]}" for name in present)
    absent = [name for name in VARIABLES if name not in present]
    why = f"not set: {', '.join(absent)}" if absent else _contradiction()
    if not why:
        return []
    alone = f"unset {' '.join(name for name in present if name in NUMBERS)}"
    fix = f"for one process: {alone}; for several, let torchrun number them: torchrun ..."
    return [Problem(f"{given} in the environment", f"this does not make a rank: {why}", fix)]


def _read() -> Launch | None:
    if not all(os.environ.get(name) for name in NUMBERS):
        return None
    number = {name: int(os.environ[name]) for name in (*NUMBERS, "MASTER_PORT")}
    return Launch(
        rank=number["RANK"],
        local_rank=number["LOCAL_RANK"],
        world_size=number["WORLD_SIZE"],
        host=os.environ["MASTER_ADDR"],
        port=number["MASTER_PORT"],
    )


def _contradiction() -> str:
    """Return what is wrong with the values of a complete set; "" if nothing is."""
    for name in (*NUMBERS, "MASTER_PORT"):
        if not re.fullmatch("[0-9]{1,9}", os.environ[name]):
            return f"{name} is not a number"
    launched = _read()
    assert launched is not None
    if launched.rank >= launched.world_size:
        return "ranks are numbered from 0, so RANK must be below WORLD_SIZE"
    lowest = 0 if launched.world_size == 1 else 1  # 0 is any free port, which others cannot know
    if not lowest <= launched.port < 2**16:
        return f"MASTER_PORT must be from {lowest} to 65535"
    return ""
