"""Checks that the numbers in a checkpoint are possible, even where its hashes are right.

Someone may have edited a checkpoint and hashed it again. So before a number is used, this module
checks that it is in its range, and that steps, epochs and ranks agree with each other.
"""

import math
from itertools import chain
from pathlib import Path
from typing import Any

from llama_recipes_local.checkpoints import layout, rng_state
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError, Manifest
from llama_recipes_local.configs.training import HIGHER_IS_BETTER, LOSS

MOST = 2**53
"""The largest count that is believed: JSON's readers agree up to it."""
LOSSES = ("train_loss", "eval_loss", "train_step_loss", "eval_step_loss")
SECONDS = ("epoch_seconds", "checkpoint_seconds")


def check_numbers(folder: Path, manifest: Manifest) -> None:
    """Check the JSON files that a run resumes from; they are small.

    Raises:
        CorruptCheckpointError: if a value is impossible; the message names the file.
    """
    # one at a time: the first that is missing ends it, whatever number of ranks is written
    ranks = (f"{layout.RANDOM}/rank-{rank}.json" for rank in range(manifest.ranks))
    for name in chain([layout.TRAINER], ranks, [layout.IDENTITY]):
        if name not in manifest.files:
            if name == layout.IDENTITY:
                continue  # saved by a script, which has no run to describe
            raise CorruptCheckpointError(f"{folder / layout.MANIFEST} does not list {name}")
        content = layout.read_json(folder / name)
        try:
            if name == layout.TRAINER:
                _check_progress(content, manifest)
            elif name == layout.IDENTITY:
                _require(all(isinstance(kind, dict) for kind in content.values()), "no identity")
            else:
                rng_state.check(content)
        except Exception as error:  # whatever a value of another type raises
            why = str(error) if type(error) is ValueError else repr(error)
            if type(error) is KeyError:
                why = f"{error} is missing"
            raise CorruptCheckpointError(f"{folder / name} cannot be true: {why}") from error


def _check_progress(saved: dict[str, Any], manifest: Manifest) -> None:
    _require(saved["ranks"] == manifest.ranks, "ranks is not the manifest's")
    _require(_is_number(saved["seconds"], 0), "seconds")
    _check_state(saved["state"], manifest.step)
    _check_history(saved["history"], saved["state"])
    _check_place(saved["feed"], saved["state"]["epoch"])
    _check_optimizer(saved["optimizer"], manifest.step)
    scaler = saved["stepper"]["scaler"]
    _require(_is_number(saved["stepper"]["overflows"], 0), "overflows")
    _require(all(_is_number(value, 0) for value in scaler.values()), "scaler")
    _require(scaler.get("scale", 1) > 0, "scale")
    _require(isinstance(saved["schedule"], dict), "schedule")
    _require(all(map(_is_setting, saved["schedule"].values())), "schedule")


def _check_state(state: dict[str, Any], step: int) -> None:
    _require(_is_count(state["step"]) and state["step"] == step, "step is not the manifest's")
    _require(_is_count(state["epoch"], step), "epoch")
    _require(state["validated"] == -1 or _is_count(state["validated"], step), "validated")
    best, best_step = state.get("best_value"), state.get("best_step", -1)
    _require(best is None or _is_number(best, 0), "best_value")
    _require(best_step == -1 or _is_count(best_step, step), "best_step")
    _require(state.get("best_metric", LOSS) in HIGHER_IS_BETTER, "best_metric")
    for name in ("best_tokens", "total_steps", "stale_validations"):
        _require(_is_count(state.get(name, 0)), name)


def _check_history(history: dict[str, Any], state: dict[str, Any]) -> None:
    for name in LOSSES:
        _require(all(map(_is_float, history[name])), name)
    for name in SECONDS:
        _require(all(_is_number(value, 0) for value in history[name]), name)
    for name in ("initial_eval_loss", "tflops"):
        _require(history[name] is None or _is_float(history[name]), name)
    for name in ("initial_eval_tokens", "last_eval_tokens", "tokens"):
        _require(history.get(name) is None or _is_count(history[name]), name)
    for total, count in (history.get("source_sums") or {}).values():
        _require(_is_float(total) and _is_count(count) and count > 0, "source_sums")
    _require(isinstance(history["file"], str), "file")
    _require(_is_number(history["seconds_of_epoch"], 0), "seconds_of_epoch")
    for loss, labels in history["epoch_steps"]:
        _require(_is_float(loss) and _is_count(labels), "epoch_steps")
    _require(len(history["train_step_loss"]) == state["step"], "step, by the losses of the steps")
    if "total_steps" in state:
        _require(len(history["train_loss"]) == state["epoch"], "epoch, by the epochs' losses")


def _check_place(feed: dict[str, Any], epoch: int) -> None:
    _require(_is_count(feed["taken"]) and isinstance(feed["ended"], bool), "taken")
    place = feed["position"]
    if place is None:
        return
    _require(feed["taken"] > 0, "taken, by the position")
    for name in ("batch_size", "group"):
        _require(_is_count(place[name]) and place[name] > 0, name)
    _require(isinstance(place["seed"], int) and isinstance(place["order"], str), "seed")
    _require(_is_count(place["rows"]), "rows")
    for name in ("num_rows", "micro_batches"):
        _require(place[name] is None or _is_count(place[name]), name)
    _require(place["num_rows"] is None or place["rows"] <= place["num_rows"], "rows")
    stream = place["micro_batches"] is not None
    _require(stream or place["epoch"] in (epoch, epoch + feed["ended"]), "epoch of the position")


def _check_optimizer(optimizer: dict[str, Any], step: int) -> None:
    for name, numbers in optimizer["numbers"].items():
        _require(all(map(_is_setting, numbers.values())), f"the state of {name}")
        taken = numbers.get("step", 0)
        _require(_is_number(taken, 0) and taken <= step, f"the steps of {name}")
    _require(bool(optimizer["groups"]), "no groups")
    for group in optimizer["groups"]:
        _require(_is_number(group["lr"], 0), "lr")
        _require(all(isinstance(name, str) for name in group["params"]), "params")
        rest = (value for name, value in group.items() if name != "params")
        _require(all(map(_is_setting, rest)), "a setting of the optimiser")
        _require(all(0 <= beta < 1 for beta in group.get("betas") or ()), "betas")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _is_count(value: object, most: int = MOST) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_float(value: object) -> bool:
    """Whether a value is a number; a loss that overflowed is one."""
    return type(value) is float or (type(value) is int and abs(value) <= MOST)


def _is_number(value: object, least: float = -math.inf) -> bool:
    return _is_float(value) and math.isfinite(value) and value >= least  # type: ignore[arg-type, operator]


def _is_setting(value: object) -> bool:
    """Whether a value is what settings are made of: numbers, words, and lists of them."""
    if isinstance(value, list):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, (bool, str)) or _is_number(value)
