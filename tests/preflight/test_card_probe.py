"""The speed of a device is measured once, and known to all that plan with it."""

import json
import time
from pathlib import Path

import pytest
import torch

from llama_recipes_local.cli import main
from llama_recipes_local.planning.cards import card, is_known
from llama_recipes_local.preflight import card_probe, device_card
from llama_recipes_local.storage import host_memory
from llama_recipes_local.storage.host_memory import total_bytes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA_RECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(card_probe, "SECONDS", 0.01)
    return tmp_path / "cache"


def test_a_rate_is_measured_once_and_again_for_another_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = card_probe.rates("cpu")
    assert all(0 < rate < 1000 for rate in first)
    monkeypatch.setattr(card_probe, "measured", lambda device: pytest.fail("again"))
    assert card_probe.rates("cpu") == first
    monkeypatch.setattr(torch, "__version__", "0.0")
    monkeypatch.setattr(card_probe, "measured", lambda device: (1.0, 2.0))
    assert card_probe.rates("cpu") == (1.0, 2.0)
    assert len(json.loads((cache / "device_rates.json").read_text())) == 2


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1}', '{"a": ["b", "c"]}'])
def test_what_cannot_be_read_is_measured_again(cache: Path, text: str) -> None:
    cache.mkdir()
    (cache / "device_rates.json").write_text(text)
    assert card_probe.rates("cpu")[0] > 0
    assert len(json.loads((cache / "device_rates.json").read_text())) == 1


def test_rates_are_those_of_the_fastest_call(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_probe, "_fastest", lambda work, device: 0.5)
    # 1,024 cubed takes 2 FLOPs each; 2**24 numbers of 4 bytes are read and written
    assert card_probe.measured("cpu") == (2 * 1024**3 / 0.5e12, 2 * 4 * 2**24 / 0.5e12)
    clock = iter([0.0, 1.0, 1.4, 1.4, 2.0, 2.3, 9.0])
    monkeypatch.undo()
    monkeypatch.setattr(card_probe.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(card_probe, "SECONDS", 5.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert card_probe._fastest(lambda: None, "cpu") == pytest.approx(0.3)


def test_a_thread_is_timed_by_its_own_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(card_probe, "SECONDS", 0.0)
    # others have the cores meanwhile
    assert card_probe._fastest(lambda: time.sleep(0.05), "cpu") < 0.04


def test_the_ranks_of_a_host_share_its_memory(cache: Path) -> None:
    one, four = device_card.this_cpu(1), device_card.this_cpu(4)
    assert one is not None
    assert four is not None
    assert one.memory == pytest.approx(4 * four.memory)
    assert one.memory < (total_bytes() or 0) / 2**30
    assert one.rate == four.rate


def test_a_host_without_proc_has_a_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = total_bytes()
    monkeypatch.setattr(host_memory, "_FIGURES", tmp_path / "none")
    assert total_bytes() == pytest.approx(before, rel=0.05)


def test_where_nothing_can_be_measured_the_assumed_speed_stays(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(device: str) -> tuple[float, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(card_probe, "measured", full)
    monkeypatch.setattr(card_probe, "_key", lambda device: "a GPU")
    assert device_card._probed(card(11), "cuda") == card(11)


def test_a_gpu_that_is_not_in_the_table_is_known_to_be_so() -> None:
    assert is_known("NVIDIA H100 80GB HBM3")
    assert not is_known("NVIDIA GeForce GTX 1080")


def test_a_plan_for_this_machine_says_that_it_was_measured(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_probe, "measured", lambda device: (0.05, 0.02))
    monkeypatch.setattr(device_card, "this_card", lambda: None)
    assert main(["plan", "--probe"]) == 0
    said = "0.05 TFLOP/s (measured on this machine) and 0.02 TB/s of this CPU"
    assert capsys.readouterr().out.strip() == said
    words = ("plan", "--model_name", "smollm2-135m", "--context_length", "128", "--use_peft")
    assert main([*words, "--probe"]) == 0
    printed = capsys.readouterr().out
    assert f"basis: {said}" in printed
    assert "--use_fast_kernels" not in printed
    assert main([*words, "--probe", "--gpu", "H100"]) == 2
    assert "--probe with --gpu" in capsys.readouterr().err
