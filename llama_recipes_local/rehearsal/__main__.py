"""``python -m llama_recipes_local.rehearsal FILE``: runs the stages that a file describes.

It is a process of its own in which CUDA is hidden and nothing has been computed yet. Each stage is
a fork of it, so that nothing has to be imported again.
"""

import sys
from pathlib import Path

from llama_recipes_local.processes import end_with_parent


def main() -> int:
    """Rehearse; return the exit code."""
    end_with_parent(int(sys.argv[2]))
    from llama_recipes_local import finetuning_run
    from llama_recipes_local._upstream import load
    from llama_recipes_local.rehearsal.performance import StageError, rehearse
    from llama_recipes_local.rehearsal.script import FAILURE, read_script

    load("finetuning")
    assert finetuning_run is not None  # imported for the stages
    script = read_script(Path(sys.argv[1]))
    try:
        rehearse(script)
    except StageError as error:
        Path(script.folder, FAILURE).write_text(str(error), "utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
