"""Can processes on this host reach each other, with gloo and, between GPUs, with nccl?"""

import socket
import subprocess
import sys
from collections.abc import Iterator

import torch

from llama_recipes_local.commands.doctor import round_trip
from llama_recipes_local.commands.doctor.diagnosis import Finding, State

_SECONDS = 120
_CONNECT_SECONDS = 5
_FIXES = {
    "gloo": "name the interface: export GLOO_SOCKET_IFNAME=lo",
    "nccl": "NCCL_DEBUG=INFO says where it stops; NCCL_P2P_DISABLE=1 works around some boards",
}


def examine() -> Iterator[Finding]:
    """Add up numbers of several processes."""
    why = _loopback()
    yield (
        Finding("gloo", State.BROKEN, why, "ip link set lo up, as root") if why else _sum("gloo", 2)
    )
    gpus = torch.cuda.device_count()
    if gpus > 1:
        yield _sum("nccl", gpus)
    elif gpus:
        yield Finding("nccl", State.ABSENT, "one GPU has nobody to talk to")


def _loopback() -> str:
    """Return why processes cannot reach each other at all; empty if they can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            socket.create_connection(server.getsockname(), _CONNECT_SECONDS).close()
        except OSError as error:
            return f"the loopback interface does not work: {error.strerror or error}"
    return ""


def _sum(backend: str, ranks: int) -> Finding:
    """Have ranks add up their numbers with a backend."""
    fix = _FIXES[backend]
    try:
        processes = [
            _start(backend, ranks, rank, port) for port in [_port()] for rank in range(ranks)
        ]
        try:
            outputs = [process.communicate(timeout=_SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    except subprocess.TimeoutExpired:
        return Finding(backend, State.BROKEN, f"no sum of {ranks} ranks in {_SECONDS} s", fix)
    failed = [out for process, out in zip(processes, outputs, strict=True) if process.returncode]
    if failed:
        reason = (failed[0].strip().splitlines() or ["no word"])[-1]
        return Finding(backend, State.BROKEN, f"{ranks} ranks: {reason}", fix)
    return Finding(backend, State.WORKS, f"{ranks} ranks add up their numbers")


def _start(backend: str, ranks: int, rank: int, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", round_trip.__name__, backend, str(ranks), str(rank), str(port)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _port() -> int:
    """Return a port of this host that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
