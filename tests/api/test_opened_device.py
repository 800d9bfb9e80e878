"""The driver opens the device that torch uses, and whatever is missing disturbs nothing."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llama_recipes_local import finetuning
from llama_recipes_local.api import logged_run, opened_device
from llama_recipes_local.api.opened_device import open_device


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with two devices that notes what it is asked for, in a process without torch."""
    asked: list[Any] = []

    def device_get(device: Any, number: int) -> int:
        device._obj.value = 70 + number
        return 0 if number < 2 else 101

    driver = SimpleNamespace(
        asked=asked,
        cuInit=lambda flags: asked.append(("init", flags)) or 0,
        cuDeviceGet=device_get,
        cuDevicePrimaryCtxRetain=lambda _, device: asked.append(("open", device.value)) or 0,
    )
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": driver}.__getitem__)
    monkeypatch.delitem(sys.modules, "torch")
    return driver


def opened(number: int) -> None:
    thread = open_device(number)
    assert thread is not None
    thread.join()


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_opens_its_own_device(driver: SimpleNamespace, number: int) -> None:
    opened(number)
    assert driver.asked == [("init", 0), ("open", 70 + number)]


def test_a_device_that_is_not_there_is_left_alone(driver: SimpleNamespace) -> None:
    opened(2)
    assert driver.asked == [("init", 0)]


def test_where_torch_is_imported_the_device_is_its_own(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert open_device(0) is None and driver.asked == []


def test_a_driver_that_does_not_start_is_left_alone(driver: SimpleNamespace) -> None:
    driver.cuInit = lambda flags: 100
    opened(0)
    assert driver.asked == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_machine_without_a_driver_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_device, "DRIVER", "libno_such_driver.so.1")
    monkeypatch.delitem(sys.modules, "torch")
    opened(0)


def test_a_process_with_torch_opens_nothing_for_it() -> None:
    assert open_device(0) is None


def test_a_run_opens_the_device_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(logged_run, "open_device", numbers.append)
    monkeypatch.setattr(logged_run, "import_run", lambda: pytest.fail("past it"))
    monkeypatch.setattr(logged_run.launch, "local_rank", lambda: 1)
    with pytest.raises(pytest.fail.Exception):
        finetuning.finetune((), {})
    assert numbers == [1]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.command
def test_torch_uses_the_device_that_the_driver_has_opened(environment: dict[str, str]) -> None:
    code = """
import ctypes
from llama_recipes_local.api.opened_device import open_device
open_device(0).join()
flags, active = ctypes.c_uint(), ctypes.c_int()
driver = ctypes.CDLL("libcuda.so.1")
driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
import torch
print(active.value, torch.ones(2, device="cuda").sum().item())
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2.0"]
