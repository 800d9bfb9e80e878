"""Broken checkpoints, some with hashes that fit: refused in words, or still of their own step."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fuzzing import Case, SilentError, damaged, damaged_json, fuzz
from made_checkpoint import checkpoint

from llama_recipes_local.checkpoints import layout, selection, verifying
from llama_recipes_local.configs import train_config
from llama_recipes_local.console import printable_output

pytestmark = pytest.mark.slow
STEP = 5


def signed(text: bytes) -> bytes:
    """Return a manifest with the digest that its content should have, if it can have one."""
    try:
        content = json.loads(text)
        del content["sha256"]
        plain = json.dumps(content, indent=1, sort_keys=True)
        content["sha256"] = hashlib.sha256(plain.encode()).hexdigest()
        return json.dumps(content, indent=1, sort_keys=True).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return text


def rehashed(manifest: dict[str, Any], name: str, data: bytes) -> bytes:
    """Return a manifest that vouches for another content of a file."""
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = {**manifest["files"], name: entry}
    return signed(json.dumps({**manifest, "files": files}).encode())


def test_checkpoints(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, STEP)
    sound = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    manifest = json.loads(sound[layout.MANIFEST])
    config = train_config(output_dir=str(tmp_path), resume_from_checkpoint="auto")

    def attack(case: Case) -> None:
        for name, data in sound.items():
            (folder / name).write_bytes(data)
        rng = case.random
        name = rng.choice([layout.MANIFEST, *sound])
        data = damaged_json(rng, json.loads(sound[name]))
        if name == layout.MANIFEST and rng.random() < 0.7:
            data = signed(data)
        elif rng.random() < 0.8:
            (folder / layout.MANIFEST).write_bytes(rehashed(manifest, name, data))
        if rng.random() < 0.1:
            data = damaged(rng, data)
        (folder / name).write_bytes(data)
        case.given += [name, data]
        expected = selection.expected(config)
        with printable_output():
            selected = selection.select(config)
        if selected != expected:
            raise SilentError("what is compared with the run is not what it resumes from")
        verifying.verify(folder)
        verifying.check_quickly(folder)
        if layout.read_manifest(folder).step != STEP:
            raise SilentError("it is of another step than it is named for")

    assert fuzz("checkpoints", 600, attack)["used"] > 20
