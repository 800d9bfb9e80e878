"""What makes the table of peers: the clock, the cells that are asked for, and cells that fail."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import peers
import pytest
import torch
from step_clock import Clock, WhenImported

NAME = "8B, QLoRA r=16, recomputation"


def test_each_cell_in_order_is_work_that_is_described() -> None:
    every = peers.cells("", tiny=False)
    assert {name for name, _ in peers.ORDER} == set(peers.WORK)
    assert {name for name, tool in every if tool == peers.OURS} == set(peers.WORK)


def test_cells_are_chosen_by_work_and_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda module: module)
    assert peers.cells("QLoRA.*recomputation: ", tiny=False) == [
        (NAME, peers.OURS),
        (NAME, peers.UNSLOTH),
    ]
    monkeypatch.setattr(peers, "find_spec", lambda module: None if module == "unsloth" else module)
    assert peers.cells("QLoRA.*recomputation: ", tiny=False) == [(NAME, peers.OURS)]


def test_the_clock_marks_each_step_of_any_optimiser(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", started=0.0, steps=4)
    try:
        take_steps()
    finally:
        clock.hook.remove()
    assert len(json.loads(clock.out.read_text())["step_seconds"]) == 3  # between four steps


def take_steps() -> None:
    """Take two steps each with two optimisers."""
    weight = torch.nn.Parameter(torch.ones(2))
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = kind([weight], lr=0.1)
        for _ in range(2):
            weight.sum().backward()
            optimizer.step()


def test_a_cell_that_fails_is_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("a problem\n╰───╯\n  1%| | 1/6 [00:00<?, ?it/s]\n\n")

    def fail(cell: dict[str, object], file: Path, log: Path, limit: float) -> None:
        raise RuntimeError(peers.last_line(tmp_path / "log"))

    monkeypatch.setattr(peers, "make_model", lambda *_, **__: tmp_path)
    monkeypatch.setattr(peers, "make_rows", lambda *_: (tmp_path, 1.0))
    monkeypatch.setattr(peers, "run_limited", fail)
    options = Namespace(work=tmp_path, tokenizer=tmp_path, steps=6)
    result = peers.run_cell(peers.WORK[NAME], peers.OURS, options, 0, 10.0)
    assert result == {"error": "a problem"}


def test_what_the_same_environment_measured_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    assert peers.earlier(out) == []
    measured = {"name": NAME, "tool": peers.OURS, "tokens_per_second": 12345}
    peers.save([measured, {"name": NAME, "tool": peers.TRL, "error": "no time left"}], out)
    assert peers.earlier(out) == [measured]
    other = json.loads(out.read_text())
    other["environment"]["torch"] = "1.0"
    out.write_text(json.dumps(other))
    with pytest.raises(SystemExit, match="another machine"):
        peers.earlier(out)


@pytest.mark.command
def test_a_cell_ends_with_its_clock_or_with_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "clock.json"
    with subprocess.Popen(["sleep", "60"]) as process:
        assert peers.wait(process, out, limit=0.0) == "ended after 0 s"
        out.touch()
        assert peers.wait(process, out, limit=0.0) == ""
        process.kill()
    out.unlink()
    assert peers.wait(process, out, limit=60.0) == "exit code -9"


def test_the_table_has_a_row_for_work_and_a_column_for_a_tool() -> None:
    read = {"tokens_per_second": 12345, "peak_gib": 9.5, "seconds_to_first_step": 12.3}
    results = [
        {"name": NAME, "tool": peers.UNSLOTH, "error": "out of memory"},
        {"name": NAME, "tool": peers.OURS, **read},
        {"name": "7B, all weights", "tool": peers.OURS, **read},
    ]
    lines = peers.table(results).splitlines()
    assert lines[2] == "| work | ours | unsloth |"
    assert lines[4:6] == [
        f"| {NAME} | 12,345 at 9.5; 12 s | out of memory |",
        "| 7B, all weights | 12,345 at 9.5; 12 s |  |",
    ]


def test_the_clock_waits_for_a_module_that_a_tool_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[int] = []
    finders = list(sys.meta_path)
    WhenImported("imported_late", lambda module: found.append(module.value))
    assert not found
    __import__("imported_late")
    WhenImported("imported_late", lambda module: found.append(module.value + 1))  # it is there
    assert found == [1, 2]
    assert sys.meta_path == finders
