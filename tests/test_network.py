"""What Python code tries to reach on other machines is noted; what stays on this one is not."""

import socket
from pathlib import Path

import pytest

from llama_recipes_local import _network


def test_attempts_are_noted() -> None:
    _network.watch()
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
    assert _network.attempts() == []
    with socket.socket() as client, pytest.raises(OSError):
        client.settimeout(0.001)
        client.connect(("192.0.2.1", 443))  # an address that nobody has
    with pytest.raises(OSError):
        socket.getaddrinfo("no.such.host.invalid", 443)
    with socket.socket() as client, pytest.raises(OSError):
        client.sendto(b"", ("192.0.2.2", 443))  # fails: it is not connected
    assert _network.attempts() == ["192.0.2.1", "no.such.host.invalid", "192.0.2.2"]
    _network.watch()
    assert _network.attempts() == []


def test_a_socket_of_this_machine_is_no_attempt(tmp_path: Path) -> None:
    _network.watch()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
        client.connect(str(tmp_path / "none"))
    assert _network.attempts() == []


def test_where_ranks_meet_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node-0.invalid")
    _network.watch()
    with pytest.raises(OSError):
        socket.getaddrinfo("node-0.invalid", 29500)
    assert _network.attempts() == []
