"""Keeps the automatic choices of a run that is resumed.

Another sharding, activation policy or micro-batch would add numbers in another order, and the run
would end with other numbers than without the interruption.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import selection
from llama_recipes_local.errors import UsageError
from llama_recipes_local.field_values import update_config
from llama_recipes_local.planning import asked as planned
from llama_recipes_local.planning.flags import NAMES
from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import SavedRun

_READ = {name for names in NAMES.values() for name in names} | {"enable_fsdp", "use_fast_kernels"}


def resumed_choices(
    run: Run, asked: Setting, free: frozenset[str]
) -> tuple[str, Setting, frozenset[str]]:
    """Return a run's checkpoint by name, its former setting, and what may still be chosen.

    Without a checkpoint the name is "" and everything may be chosen. With one, rows may be chosen
    if the former number does not divide a step's rows on the present ranks, and sharding if the
    former run was a single process.

    Args:
        run: the run.
        asked: the setting that the run asks for.
        free: what could be chosen if the run were not resumed.
    """
    folder = selection.expected(run.train)
    recorded = _recorded(folder) if folder is not None else None
    if folder is None or recorded is None:
        return "", asked, free
    train, fsdp = recorded
    if POLICY in free:
        asked = replace(asked, policy=planned.policy(train, fsdp, asked.on_cpu))
    if SHARDING in free and train.enable_fsdp:
        ranks = replace(asked.ranks, sharding=planned.strategy(fsdp))
        asked, free = replace(asked, ranks=ranks), free - {SHARDING}
    rows = train.batch_size_training
    steps, rest = divmod(asked.batch.rows * asked.batch.accumulation, max(rows, 1))
    if ROWS in free and not rest:
        batch = replace(asked.batch, rows=rows, accumulation=steps)
        asked, free = replace(asked, batch=batch), free - {ROWS}
    return folder.name, asked, free - {POLICY}


def _recorded(folder: Path) -> tuple[configs.train_config, configs.fsdp_config] | None:
    """Return the setting that a checkpoint's run was trained with; None if it is not recorded.

    A record that cannot be read is reported with the checkpoint.
    """
    found = configs.train_config(), configs.fsdp_config()
    with suppress(UsageError, ValueError):
        saved = SavedRun(folder)
        for config in found:
            fields = saved.fields(type(config).__name__)
            update_config(config, **{name: fields[name] for name in _READ & fields.keys()})
        return found if saved.path is not None else None
    return None
