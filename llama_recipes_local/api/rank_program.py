"""The program that ``launching`` starts: once as torchrun, and by torchrun as each rank.

The environment variables that torchrun sets for ranks tell which of the two this process is.
"""

import json
import signal
import sys
from pathlib import Path

from llama_recipes_local import launch
from llama_recipes_local.api.calling import finetune
from llama_recipes_local.api.launching import ERROR, FLAGS, PROGRAM, RESULT
from llama_recipes_local.errors import TrainingError, UsageError
from llama_recipes_local.processes import end_with_parent
from llama_recipes_local.storage.publishing import write_json


def start_ranks(folder: Path) -> int:
    """Run torchrun with ranks whose flags are in a folder; return their exit code."""
    from llama_recipes_local import torchrun  # which imports torch

    given = json.loads((folder / FLAGS).read_text("utf-8"))
    end_with_parent(given["parent"], signal.SIGTERM)
    sys.argv = [sys.argv[0], "--standalone", "--nnodes", "1"]
    sys.argv += ["--nproc_per_node", str(given["ranks"]), "-m", PROGRAM]
    sys.argv += [str(folder)]
    return torchrun.main()


def be_rank(folder: Path) -> int:
    """Fine-tune as one of the ranks, write the result or error, and return the exit code."""
    flags = json.loads((folder / FLAGS).read_text("utf-8"))["flags"]
    try:
        result = finetune(**flags)
    except (UsageError, TrainingError) as error:
        problems = error.problems if isinstance(error, UsageError) else []
        listed = [[each.what, each.why, each.fix] for each in problems]
        found = {"kind": type(error).__name__, "text": str(error), "problems": listed}
        write_json(folder / ERROR.format(launch.rank()), found)
        return error.EXIT_CODE
    if launch.rank() == 0:
        write_json(folder / RESULT, result.as_json())
    return 0


if __name__ == "__main__":
    sys.exit((be_rank if launch.launch() else start_ranks)(Path(sys.argv[1])))
