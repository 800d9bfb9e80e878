"""What doctor says of a machine that works, and of one where a part does not."""

import errno
import importlib.metadata
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.cli import _by_name, main
from llama_recipes_local.commands.doctor import (
    command,
    gpu,
    host_limits,
    own,
    packages,
    quantizing,
    ranks,
)
from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.vendoring.checkout import Checkout, this_checkout


def found(examine: Callable[[], Iterator[Finding]]) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def examined(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(command, "EXAMINATIONS", (lambda: iter(findings),))


WORKS = Finding("disk", State.WORKS, "much")
BROKEN = Finding("nccl", State.BROKEN, "no\nsum", "set NCCL_DEBUG=INFO")


def test_lines_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examined(monkeypatch, WORKS, BROKEN)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor"])
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "  ok  disk: much",
        r"FAIL  nccl: no\nsum",
        "      fix: set NCCL_DEBUG=INFO",
        "",
        "1 part does not work",
    ]


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    examined(monkeypatch, WORKS)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "findings": [{"name": "disk", "state": "works", "text": "much", "fix": ""}],
        "broken": 0,
    }


def test_a_run_is_checked_as_it_would_check_itself(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    examined(monkeypatch)
    data = tmp_path / "own.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n' * 4)
    flags = ["--model_name", str(tiny_model), "--dataset", str(data), "--use_peft"]
    flags += ["--context_length", "128"]
    assert main(["doctor", *flags]) == 0
    out = capsys.readouterr().out
    assert "ok  run: " in out and "no problem" in out
    assert f"--model_name {tiny_model}" in out.replace(" \\\n    ", " ")
    assert main(["doctor", *flags, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["findings"][0]["state"] == "works"
    assert answer["command"][-len(flags) :] == flags
    with pytest.raises(SystemExit):
        main(["doctor", *flags, "--lr", "-1", "--model_name", str(tmp_path / "nothing")])
    out = capsys.readouterr().out
    assert out.count("FAIL  run: ") == 2 and "--lr" in out and "nothing" in out
    with pytest.raises(SystemExit):
        main(["doctor", "--clean_cach"])
    assert "did you mean --clean_cache?" in capsys.readouterr().out


def test_a_part_that_cannot_be_examined_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examinations = dict(zip(("packages", "own", "gpu"), command.EXAMINATIONS, strict=False))

    def missing() -> Iterator[Finding]:
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    def damaged() -> Iterator[Finding]:
        raise SyntaxError("'(' was never closed")

    monkeypatch.setattr(packages, "examine", missing)
    monkeypatch.setattr(own, "examine", damaged)
    monkeypatch.setattr(gpu, "examine", lambda: iter([WORKS]))
    monkeypatch.setattr(command, "EXAMINATIONS", tuple(examinations.values()))
    with pytest.raises(SystemExit):
        main(["doctor"])
    out = capsys.readouterr().out
    assert (
        "FAIL  packages: cannot be examined: ModuleNotFoundError: No module named 'nothing'" in out
    )
    assert "-m pip install nothing" in out
    assert "FAIL  own: cannot be examined: SyntaxError" in out
    assert "ok  disk: much" in out and "2 parts do not work" in out


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=2", "no-such-package>=1", "transformers>=999", 'nothing>=1; extra == "sft"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    lines = found(packages.examine)
    assert lines["no-such-package"].state is State.BROKEN
    assert lines["no-such-package"].fix.endswith("pip install 'no-such-package>=1'")
    assert "needed is >=999" in lines["transformers"].text
    assert lines["packages"].text.startswith("1 of 3 as needed: torch ")
    assert lines["extra sft"].state is State.ABSENT and "[sft]" in lines["extra sft"].fix


@pytest.mark.parametrize(
    ("driver", "built", "state", "text"),
    [
        ("", None, State.ABSENT, "training is on the CPU"),
        ("", "13.0", State.DOUBTFUL, "this torch is for CUDA 13.0, and nvidia-smi does not answer"),
        ("580.1", None, State.BROKEN, "this torch is built for CPUs"),
        ("470.1", "13.0", State.BROKEN, "torch for CUDA 13.0 finds no GPU"),
    ],
)
def test_why_there_is_no_gpu(
    driver: str, built: str | None, state: State, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "_driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", built)
    line = found(gpu.examine)["GPU"]
    assert line.state is state and text in line.text
    assert bool(line.fix) is (state is not State.ABSENT)


def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu._driver() == ""
    program.write_text("#!/bin/sh\necho 580.159.04; echo 580.159.04\n")
    assert gpu._driver() == "580.159.04"


def test_a_product_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gpu._product_is_wrong(torch.device("cpu"))
    wrong = torch.full((512, 512), float("nan"))
    monkeypatch.setattr(torch.Tensor, "float", lambda self: wrong)
    assert gpu._product_is_wrong(torch.device("cpu"))


def test_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    assert found(quantizing.examine)["bitsandbytes"].state is State.WORKS
    for error in (0.5, RuntimeError("no kernel\nat all")):

        def _error(_: str, error: Any = error) -> float:
            if isinstance(error, Exception):
                raise error
            return float(error)

        monkeypatch.setattr(quantizing, "_error", _error)
        line = found(quantizing.examine)["bitsandbytes"]
        assert line.state is State.BROKEN and line.fix
    assert "no kernel" in line.text and "at all" not in line.text


def test_little_shared_memory_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_limits._shared_memory(64 * 2**20).state is State.DOUBTFUL
    assert host_limits._shared_memory(2**33).state is State.WORKS
    monkeypatch.setattr(host_limits, "_SHARED", Path("/dev/no-shm"))
    line = found(host_limits.examine)["shared memory"]
    assert line.state is State.BROKEN and line.text.startswith("no /dev/no-shm") and line.fix
    monkeypatch.setattr(host_limits, "free_bytes", lambda _: 2**30)
    lines = found(host_limits.examine)
    assert lines["disk"].state is State.DOUBTFUL and "1 GiB" in lines["disk"].text
    monkeypatch.setattr(host_limits, "free_bytes", lambda _: 2**20)
    lines = found(host_limits.examine)
    assert lines["disk"].state is State.BROKEN and "1 MiB" in lines["disk"].text
    assert lines["disk"].fix and "LLAMA_RECIPES_CACHE" in lines["cache's disk"].fix


@pytest.mark.command
def test_ranks_that_do_not_reach_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(ranks.examine)["gloo"].state is State.WORKS
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    line = found(ranks.examine)["gloo"]
    assert line.state is State.BROKEN and line.text.startswith("2 ranks: ") and line.fix


def test_a_loopback_that_is_down_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> Any:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(ranks.socket, "create_connection", unreachable)
    line = found(ranks.examine)["gloo"]
    assert line.state is State.BROKEN and "Network is unreachable" in line.text
    assert line.fix.startswith("ip link set lo up")


def test_ranks_that_wait_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = ["sleep", "60"]
    monkeypatch.setattr(ranks, "_SECONDS", 0.2)
    monkeypatch.setattr(
        ranks, "_start", lambda *_: subprocess.Popen(sleeps, stdout=subprocess.PIPE, text=True)
    )
    assert found(ranks.examine)["gloo"].text == "no sum of 2 ranks in 0.2 s"


def test_a_copy_that_was_edited(tmp_path: Path) -> None:
    here = this_checkout()
    assert own._copy(here).state is State.WORKS
    there = Checkout(tmp_path)
    shutil.copytree(here.vendor, there.vendor)
    assert own._copy(there).state is State.WORKS  # as in an installed package, without patches
    (there.vendor / "llama_recipes" / "finetuning.py").write_text("pass\n")
    line = own._copy(there)
    assert line.state is State.BROKEN and "finetuning.py changed" in line.text
    assert line.fix.endswith("-m llama_recipes_local.vendoring make")


def test_the_cache_is_measured_and_cleaned_of_tokens_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_CACHE", str(tmp_path))
    entry, other = tmp_path / "tokens" / "abc", tmp_path / "notes"
    for folder in (entry, other):
        folder.mkdir(parents=True)
        (folder / "about.json").write_text("{}")
    (entry / "rows.arrow").write_bytes(bytes(3 * 2**20))
    assert own._cache(tmp_path).text.startswith("3 MiB of tokens in 1 entries")
    examined(monkeypatch)
    assert main(["doctor", "--clean-cache"]) == 0
    assert "removed 1 entries" in capsys.readouterr().err
    assert not entry.exists() and (other / "about.json").exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert own._cache(tmp_path / "file").state is State.BROKEN
    assert own._cache(tmp_path / "file" / "below").state is State.BROKEN
    assert own._cache(tmp_path / "new").state is State.WORKS
    monkeypatch.setattr(own.os, "access", lambda path, mode: False)
    assert own._cache(tmp_path).state is State.DOUBTFUL


def test_a_copy_that_python_cannot_read() -> None:
    place = str(VENDORED_DIR / "configs" / "training.py")
    error = _by_name(SyntaxError("'(' was never closed", (place, 51, 1, "", 51, 2)))
    assert "is damaged" in str(error) and "vendoring make" in str(error) and place in str(error)
    other = SyntaxError("invalid syntax", ("/elsewhere/mine.py", 1, 1, "", 1, 2))
    assert _by_name(other) is other
