"""``finetuning.py``, whose rank 1 is killed in the middle of step 6 of the first attempt."""

import os
import signal
import sys
from typing import Any

import fire

from llama_recipes_local.finetuning import main
from llama_recipes_local.training import stepping

judge = stepping.Stepper._check_finite
calls = 0


def judge_and_die(self: Any, *arguments: Any) -> Any:
    global calls
    calls += 1
    if calls == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(self, *arguments)


if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    stepping.Stepper._check_finite = judge_and_die  # type: ignore[method-assign]
fire.Fire(main, command=sys.argv[1:])
