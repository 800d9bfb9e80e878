"""Refuses a run that certainly does not fit into the device, judged by shapes and settings.

For a CPU the device's memory is what the host has available: what other processes have taken may
stay taken.

A run that might fit is never refused: the check uses ``search.Outcome.least``, which is below the
prediction; it takes rows to be no longer than the data, and padded rows to be empty.
"""

from dataclasses import replace
from pathlib import Path

from llama_recipes_local import launch
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.weight_files import check_weights
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.planning.asked import setting
from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.flags import changes, contradicted, without, words
from llama_recipes_local.planning.search import Outcome, nearest_fitting, outcome
from llama_recipes_local.planning.setting import Setting, Validation
from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.planning.tokens import bytes_of
from llama_recipes_local.planning.wording import by_part
from llama_recipes_local.preflight.device_card import this_card, this_host
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.program import command
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import packed_bits

MOST_BYTES_A_TOKEN = 10
"""Of a file, so that there are more tokens in it for certain."""


def check_memory(run: Run) -> list[Problem]:
    """Find a run that certainly needs more memory than its device has."""
    elsewhere = run.train.dry_run or run.train.rehearse  # a plan for a GPU where there is none
    card = this_card() or (None if elsewhere else this_host())
    asked = asked_setting(run, card is not None and card.on_cpu)
    if card is None or asked is None:
        return []
    least = outcome(_least(run, asked), card)
    if not least.cannot_fit or _is_another_model(run):
        return []
    of, has = "each GPU, which has", f"{least.has:.1f}"
    if card.on_cpu:
        of, has = "host memory for each process, which has", f"{has} available"
    return [
        Problem(
            f"this run needs at least {least.least:.1f} GiB of {of} {has}",
            f"predicted by its settings, in GiB: {by_part(outcome(asked, card).memory)}",
            _fix(run, asked, card),
        )
    ]


def _is_another_model(run: Run) -> bool:
    """Return whether the weights differ from ``config.json``, which another check reports."""
    folder = Path(run.train.model_name).resolve()
    if run.model is not None or check_weights(folder):
        return False
    return bool(check_stored_model(folder))


def asked_setting(run: Run, on_cpu: bool = False) -> Setting | None:
    """Return the setting that a run asks for; None for a model that is not known here."""
    config = model_config(run) if run.train.model_name else {}
    shape = shape_of(config)
    if shape is None or run.train.batch_size_training < 1 or run.train.context_length < 1:
        return None
    world = launch.world_size()
    hosts = max(world // launch.ranks_of_host(), 1)
    return setting(run, shape, world, hosts, on_cpu, packed_bits(config))


def _least(run: Run, asked: Setting) -> Setting:
    """Return a setting with rows as short as they can be: padded ones may have any length.

    A validation is taken to have no more than its data, and to be empty if that is unknown.
    """
    size = bytes_of(run.dataset) if run.dataset is not None else None
    length = 1 if run.train.batching_strategy != "packing" else asked.batch.length
    if size is not None:  # a token is a byte at least
        length = max(min(length, size // asked.batch.rows), 1)
    validated = bytes_of(run.dataset, "test") if run.dataset is not None else None
    tokens = min(length * run.train.val_batch_size, (validated or 0) // MOST_BYTES_A_TOKEN)
    validation = Validation(tokens) if asked.validation is not None else None
    return replace(asked, batch=replace(asked.batch, length=length), validation=validation)


def _fix(run: Run, asked: Setting, card: Card) -> str:
    """Return the flags of the nearest setting that fits, or the command that compares methods."""
    found: Outcome | None = nearest_fitting(asked, card)
    if found is None and nearest_fitting(replace(asked, validation=None), card) is not None:
        return "--val_batch_size 1, or --run_validation False"
    if found is None:
        there = f"--gpus {asked.ranks.world} --gpu_memory {card.memory:.0f}"
        where = "--probe" if card.on_cpu else there
        compare = f"{command('plan', '--model_name', run.train.model_name)} {where}"
        return f"nothing that does this work fits; `{compare}` shows what does"
    flags = changes(found.setting, asked)
    out = without(contradicted(run, flags))
    return f"{' '.join(words(flags))}{out} (needs {found.needs:.1f} GiB)"
