"""GPUs, their driver, and whether this torch computes on them as a CPU does."""

import shutil
import subprocess
from collections.abc import Iterator

import torch

from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.kernels.registry import ATTENTION, MODEL_KERNELS
from llama_recipes_local.preflight.fp8_rules import HOPPER

_GIB = 2**30
_SECONDS = 20
_AMPERE = (8, 0)
_LENGTH = 512


def examine() -> Iterator[Finding]:
    """Ask the driver and torch, multiply on each GPU, and look for the kernels."""
    driver = _driver()
    built = torch.version.cuda
    if not torch.cuda.is_available():
        yield _no_gpu(driver, built)
    else:
        yield Finding("driver", State.WORKS, f"{driver or 'not asked'}, torch is for CUDA {built}")
        for index in range(torch.cuda.device_count()):
            yield from _device(index)
    yield from _kernels()


def _driver() -> str:
    """Return the driver's version by nvidia-smi; empty if there is none, or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.split() or [""])[0]


def _no_gpu(driver: str, built: str | None) -> Finding:
    """Say why there is no GPU for torch."""
    if not driver:
        text = "none found: training is on the CPU, which is for trying things out"
        if built is None:
            return Finding("GPU", State.ABSENT, text)
        why = f"this torch is for CUDA {built}, and nvidia-smi does not answer"
        fix = "install NVIDIA's driver, if there is a GPU; in a container: docker run --gpus all"
        return Finding("GPU", State.DOUBTFUL, f"{text}; {why}", fix)
    if built is None:
        text = f"driver {driver} is there, but this torch is built for CPUs"
        return Finding("GPU", State.BROKEN, text, "install a torch for CUDA, see docs/install.md")
    text = f"driver {driver} is there, but torch for CUDA {built} finds no GPU"
    fix = (
        "update the driver, or install a torch for an older CUDA, see docs/install.md; "
        "CUDA_VISIBLE_DEVICES may hide it"
    )
    return Finding("GPU", State.BROKEN, text, fix)


def _device(index: int) -> Iterator[Finding]:
    """Describe a GPU, and compare a product with the CPU's."""
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    text = f"{name}, compute capability {'.'.join(map(str, capability))}"
    try:
        free, total = torch.cuda.mem_get_info(index)
        wrong = _product_is_wrong(torch.device("cuda", index))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        yield Finding(f"GPU {index}", State.BROKEN, f"{text}: {reason}", "nvidia-smi says more")
        return
    if wrong:
        text += ": a product differs from the CPU's"
        yield Finding(f"GPU {index}", State.BROKEN, text, "do not train on it: it may be defective")
        return
    memory = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    formats = "float16"
    if capability >= _AMPERE:
        formats = "bfloat16 and fp8" if capability >= HOPPER else "bfloat16"
    state = State.WORKS if free > total / 2 else State.DOUBTFUL
    fix = "" if state is State.WORKS else "nvidia-smi lists the processes that use it"
    yield Finding(f"GPU {index}", state, f"{text}, {memory}, multiplies in {formats}", fix)


def _product_is_wrong(device: torch.device) -> bool:
    """Return whether a product of random matrices on a device is not the CPU's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_LENGTH, _LENGTH, generator=generator)
    want, half = x @ x, x.to(device, torch.bfloat16)
    off = ((half @ half).float().cpu() - want).norm() / want.norm()
    return not float(off) < 0.01  # rounding to bfloat16 is off by 0.002


def _kernels() -> Iterator[Finding]:
    """Say which kernels can run here, and which flag asks for them."""
    for kernel in MODEL_KERNELS:
        yield _kernel(kernel.title, f"--{kernel.flag}", kernel.replaces, kernel.unavailable())
    for name, each in ATTENTION.items():
        flag = f"--attn_implementation {name}"
        yield _kernel("attention", flag, each.replaces, each.unavailable())


def _kernel(title: str, flag: str, replaces: str, reason: str) -> Finding:
    if reason:
        return Finding(title, State.ABSENT, f"{flag}: {reason}")
    return Finding(title, State.WORKS, f"{flag}: {replaces}")
