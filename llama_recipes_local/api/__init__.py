"""``finetune`` for Python: the same flags, checks and run as the command, and a result object.

Users import it from the package itself: ``from llama_recipes_local import finetune``.
"""

from llama_recipes_local.api.calling import finetune
from llama_recipes_local.api.result import Result
from llama_recipes_local.errors import InterruptedRun, TrainingError, UsageError

__all__ = ["InterruptedRun", "Result", "TrainingError", "UsageError", "finetune"]
