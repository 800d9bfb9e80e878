"""What all ranks of a run must agree on before they train together.

Folders may have other names on each host, so their contents are compared, not their names.
"""

import hashlib
import json
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llama_recipes_local.checkpoints import layout, selection
from llama_recipes_local.data.streaming import is_stream
from llama_recipes_local.datasets.base import PARTS, find_split
from llama_recipes_local.datasets.mixed_sources import MIXED
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import FOLDER, fields_with
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.sampled_hash import places, sampled_hash
from llama_recipes_local.model_folders.weight_files import weight_files
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import PACKAGES
from llama_recipes_local.storage.hashing import contents_hash, ends_hash
from llama_recipes_local.vendoring import read_manifest

PACKAGE = Path(__file__).parents[1]
# what all ranks write to together, or read by its name
SHARED_FOLDERS = ("output_dir", "dist_checkpoint_root_folder")
KERNEL_PACKAGES = ("accelerate", "bitsandbytes", "liger_kernel", "numpy", "safetensors")
SHOWN = 12  # digits of a hash
Facts = dict[str, str]


def launch_facts(run: Run) -> Facts:
    """Return the facts known before data is tokenised: flags, model, code, versions, device.

    Args:
        run: its flags are resolved and checked.
    """
    return {
        **_flags(run),
        **_model(run),
        **_checkpoint(run),
        **_software(),
        "the device": device_type(),
    }


def data_facts(run: Run) -> Facts:
    """Return the facts known once data is prepared: hashes of tokens and tokenizer."""
    assert run.data is not None
    facts = {"the tokenizer": run.data.tokenizer[:SHOWN]}
    for part, name in zip(PARTS, ("training", "validation"), strict=True):
        rows = run.data.splits.get(part)
        found = run.data.fingerprints.get("train" if part == "train" else name)
        if found is None and is_stream(rows):
            found = _files_hash(run)
        facts[f"the {name} data"] = found[:SHOWN] if found else _size(rows)
    return facts


def _flags(run: Run) -> Facts:
    """Return the value of every flag but folders, by flag."""
    configs = [config for config in run.configurations() if config is not run.wandb]
    facts = {}
    for config in configs:
        folders = set(fields_with(config, FOLDER)) - set(SHARED_FOLDERS)
        prefix = "" if config in (run.train, run.fsdp) else f"{type(config).__name__}."
        for name in vars(config):
            if name not in folders:
                facts[f"--{prefix}{name}"] = str(getattr(config, name))
    if run.mixed:  # files may be elsewhere on each host
        named = [f"{source.name}:{source.weight:g}" for source in run.mixed]
        facts[f"--{MIXED}.sources"] = ",".join(named)
    return facts


def _model(run: Run) -> Facts:
    folder = Path(run.train.model_name)
    facts = {
        "config.json of --model_name": contents_hash(folder / "config.json")[:SHOWN],
        "the weights of --model_name": sampled_hash(places(weight_files(folder)))[:SHOWN],
    }
    if run.train.from_peft_checkpoint:
        adapter = Path(run.train.from_peft_checkpoint) / ADAPTER_WEIGHTS
        facts["the weights of --from_peft_checkpoint"] = contents_hash(adapter)[:SHOWN]
    return facts


def _checkpoint(run: Run) -> Facts:
    """Return which checkpoint is resumed from; ranks read their parts of it themselves."""
    folder = selection.expected(run.train)
    if folder is None:
        return {"the checkpoint to resume from": "none"}
    manifest = folder / layout.MANIFEST
    digest = contents_hash(manifest)[:SHOWN] if manifest.is_file() else "without manifest"
    return {"the checkpoint to resume from": f"{folder.name} ({digest})"}


def _software() -> Facts:
    """Return versions, and hashes of this package's code and of the patches of upstream."""
    facts = {"the version of Python": platform.python_version()}
    for package in PACKAGES:
        facts[f"the version of {package}"] = import_module(package).__version__
    for package in KERNEL_PACKAGES:
        facts[f"the version of {package}"] = _version(package)
    manifest = read_manifest()
    patches = json.dumps([manifest.lock, dict(manifest.patches)], sort_keys=True)
    return facts | {
        "the code of llama_recipes_local": _code_hash()[:SHOWN],
        "the patches of upstream": hashlib.sha256(patches.encode()).hexdigest()[:SHOWN],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _code_hash() -> str:
    """Return a hash of the package's modules, its copy of upstream among them."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files_hash(run: Run) -> str:
    """Return a hash of the files that are streamed."""
    assert run.dataset is not None
    splits = (find_split(DATASETS[run.train.dataset], run.dataset, part) for part in PARTS)
    return ends_hash(path for split in splits if split for path in split.files)


def _size(rows: object) -> str:
    return f"{len(rows):,} rows" if hasattr(rows, "__len__") else "not compared"
