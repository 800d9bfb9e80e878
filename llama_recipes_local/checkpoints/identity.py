"""What a run that resumes from a checkpoint must share with the one that wrote it."""

import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_recipes_local import launch
from llama_recipes_local.checkpoints import layout, selection
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.fields import Resume, field_names, fields_with
from llama_recipes_local.models.precision import weight_dtype
from llama_recipes_local.run import Run
from llama_recipes_local.storage.hashing import contents_hash, ends_hash

# the kinds, as --resume_despite names them, and how to fix a difference
KINDS = {
    "data": "give the same files, --seed, --batching_strategy and --context_length",
    "tokenizer": "give the same --tokenizer_name",
    "batch": "keep --batch_size_training times --gradient_accumulation_steps times ranks",
    "model": "give the same --model_name",
    "method": "give the same settings",
    "schedule": "give the same settings",
}
# settings of a method that leave the trained parameters and their optimiser's state as they are
SAME_PARAMETERS = frozenset(
    {
        *("lora_alpha", "lora_dropout", "use_rslora"),
        *("dtype", "fp8", "pure_bf16", "use_fp16"),
        *("quantization", "quant_type", "compute_dtype", "use_double_quant", "quant_storage"),
    }
)
ROWS = "rows of a global batch"
OTHERS = {"data": "other data"}
Identity = dict[str, dict[str, Any]]


def identity(run: Run) -> Identity:
    """Return what of a run must be unchanged to resume it, by kind, JSON-ready.

    Args:
        run: its data is prepared.
    """
    train, data = run.train, run.data
    assert data is not None
    rows = math.prod(_values(train, Resume.BATCH).values()) * launch.world_size()
    found = {
        "data": dict(data.fingerprints) | _values(train, Resume.DATA),
        "tokenizer": {"tokenizer": data.tokenizer},
        "batch": {ROWS: rows},
        "model": _model(Path(train.model_name)),
        "method": _method(run),
        "schedule": _values(train, Resume.SCHEDULE)
        | {"gradient_clipping": train.gradient_clipping and train.gradient_clipping_threshold},
    }
    # the data's files are compared, whatever the data set is called
    del found["data"]["dataset"]
    del found["schedule"]["gradient_clipping_threshold"]
    return json.loads(json.dumps(found))  # as read from a file


def differences(was: Identity, now: Identity) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each kind that differs, with what differs as it was."""
    for kind in KINDS:
        before, after = was.get(kind, {}), now[kind]
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if changed:
            yield kind, {name: before.get(name) for name in changed}


def check_identity(run: Run, folder: Path | None = None) -> None:
    """Refuse to resume from a checkpoint of another run; do nothing without a checkpoint.

    Args:
        run: its data is prepared.
        folder: the checkpoint; None means the one that will most likely be selected.

    Raises:
        UsageError: with each kind of difference that ``resume_despite`` does not name.
    """
    folder = folder or selection.expected(run.train)
    if folder is None or layout.IDENTITY not in layout.read_manifest(folder).files:
        return  # a script's checkpoint has no run to describe
    was = layout.read_json(folder / layout.IDENTITY)
    problems = [
        _problem(run, folder, kind, changed)
        for kind, changed in differences(was, identity(run))
        if kind not in run.train.resume_despite or _other_parameters(kind, changed)
    ]
    refuse(problems)


def _problem(run: Run, folder: Path, kind: str, was: dict[str, Any]) -> Problem:
    what = f"--resume_from_checkpoint {folder} with {OTHERS.get(kind, f'another {kind}')}"
    why = ", ".join(f"{name} was {_short(value)}" for name, value in was.items())
    if _other_parameters(kind, was):
        why += ": what the checkpoint holds does not fit this run"
        return Problem(what, why, f"{_fix(run, kind, was)}, or a new run: another --output_dir")
    despite = f"resume nevertheless: --resume_despite {kind}"
    return Problem(what, why, f"{_fix(run, kind, was)}, or {despite}")


def _other_parameters(kind: str, was: dict[str, Any]) -> bool:
    """Return whether a checkpoint's tensors are not those of this run's parameters.

    A setting that was not recorded did not exist then.
    """
    known = {name for name, value in was.items() if value is not None}
    return kind == "method" and not known <= SAME_PARAMETERS


def _fix(run: Run, kind: str, was: dict[str, Any]) -> str:
    """Return what resolves a difference: the flags, where flags alone do."""
    rows, at_once = was.get(ROWS), run.train.batch_size_training * launch.world_size()
    if isinstance(rows, int) and rows and not rows % at_once:
        return f"--gradient_accumulation_steps {rows // at_once}"
    named = kind in ("data", "method", "schedule") and was.keys() <= _flags(run)
    if named and all(type(value) in (str, int, float, bool) for value in was.values()):
        given = [f"--{name} {shlex.quote(str(v))}" for name, v in was.items() if v != ""]
        fixes = ["give " + " ".join(given)] if given else []
        fixes += [f"leave --{name} out" for name, value in was.items() if value == ""]
        return ", ".join(fixes)
    return KINDS[kind]


def _flags(run: Run) -> set[str]:
    """Return the flags whose values an identity has as they are given."""
    known = {name for config in run.configurations() for name in field_names(config)}
    return known - {"gradient_clipping", "freeze_layers"}  # of two fields each


def _method(run: Run) -> dict[str, Any]:
    """Return what decides which parameters there are and how they are trained."""
    train = run.train
    method = _values(train, Resume.METHOD) | _values(run.fsdp, Resume.METHOD)
    method["dtype"] = str(weight_dtype(train)).removeprefix("torch.")
    method["freeze_layers"] = train.num_freeze_layers if train.freeze_layers else 0
    del method["num_freeze_layers"], method["peft_method"]
    if train.quantization:
        values = _values(run.quantization, Resume.METHOD)
        method |= {name: str(value) for name, value in values.items()}
    if run.peft is not None:
        method |= {"peft_method": train.peft_method} | vars(run.peft)
    return method


def _values(config: object, kind: Resume) -> dict[str, Any]:
    """Return the fields of a configuration that are part of a kind."""
    return {name: getattr(config, name) for name in fields_with(config, kind)}


def _model(folder: Path) -> dict[str, str]:
    """Return hashes that identify a model wherever it is."""
    return {"config": contents_hash(folder / "config.json"), "weights": weights_hash(folder)}


def weights_hash(folder: Path) -> str:
    """Return a hash that identifies a model's weights, without reading them completely."""
    return ends_hash(sorted(folder.glob("*.safetensors")))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
