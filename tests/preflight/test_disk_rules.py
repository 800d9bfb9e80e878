"""What a run saves must fit on the disk, and into the files that a process may write."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.preflight import disk_rules
from llama_recipes_local.preflight.disk_rules import check_disk
from llama_recipes_local.run.resolution import resolve

SEVEN_B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
# rank 8 on q and v: 32 layers * 2 * 8 * (4096 + 4096), in float32
ADAPTER = 32 * 2 * 8 * 8192 * 4
# Llama 2 7B in bfloat16
MODEL = 6_738_415_616 * 2
MB = 10**6


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "config.json").write_text(json.dumps(SEVEN_B))
    return {"model_name": str(tmp_path), "output_dir": str(tmp_path / "a" / "out")}


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({"use_peft": True}, ADAPTER),
        # weights and two moments, and the adapter as PEFT has it, beside the result
        ({"use_peft": True, "save_steps": 10}, 5 * ADAPTER),
        ({"use_peft": True, "save_model": False}, 0),
        ({}, MODEL),
        ({"save_steps": 10}, 4 * MODEL),
    ],
)
def test_a_byte_too_little_is_refused(
    more: dict[str, Any], needed: int, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve(flags | more)
    monkeypatch.setattr(disk_rules, "free_bytes", lambda folder: needed)
    assert check_disk(run) == []
    monkeypatch.setattr(disk_rules, "free_bytes", lambda folder: max(needed - 1, 0))
    problems = check_disk(run)
    assert len(problems) == (needed > 0)
    for problem in problems:
        assert f"{(needed - 1) / MB:,.0f} MB are free" in problem.what
        assert "--output_dir DIR" in problem.fix


def test_shards_of_a_model_are_elsewhere(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    free = {shards.resolve(): 0, tmp_path.resolve(): MODEL}
    monkeypatch.setattr(disk_rules, "free_bytes", free.__getitem__)
    named = {"enable_fsdp": True, "dist_checkpoint_root_folder": str(shards)}
    (problem,) = check_disk(resolve(flags | named))
    assert problem.what.startswith(f"--dist_checkpoint_root_folder {shards.resolve()}")


def test_a_limit_on_files_is_one_on_the_adapter(
    flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve(flags | {"use_peft": True})
    for limit, found in ((ADAPTER, 0), (ADAPTER - 1, 1), (resource.RLIM_INFINITY, 0)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, limit=limit: (limit, limit))
        assert len(check_disk(run)) == found
