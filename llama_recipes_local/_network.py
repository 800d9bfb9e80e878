"""Records which other machines the Python code of this process tries to reach.

It uses Python's audit events. Native code, such as gloo and nccl between ranks, raises no such
events and is not recorded.
"""

import os
import socket
import sys
from typing import Any

_CONNECTS = frozenset(("socket.connect", "socket.sendto"))  # with a socket and an address
_LOOKS_UP = frozenset(("socket.getaddrinfo", "socket.gethostbyname"))  # with a name
_tried: list[str] | None = None


def watch() -> None:
    """Begin to note attempts; a hook stays as long as the process."""
    global _tried
    if _tried is None:
        sys.addaudithook(_note)
    _tried = []


def attempts() -> list[str]:
    """Return the names and addresses that were tried since ``watch``, in their order."""
    return list(_tried or ())


def _note(event: str, arguments: tuple[Any, ...]) -> None:  # as Python has it
    if event in _CONNECTS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # else inside this machine
    elif event in _LOOKS_UP:
        host = arguments[0]
    else:
        return
    name = host.decode("utf-8", "replace") if isinstance(host, bytes) else str(host or "")
    if _tried is not None and name and not _is_here(name):
        _tried.append(name)


def _is_here(name: str) -> bool:
    """Return whether a host name is this machine's, or that of the host where ranks meet."""
    here = name.startswith("127.") or name in ("::1", "localhost", "0.0.0.0", "::")
    return here or name in (socket.gethostname(), os.environ.get("MASTER_ADDR"))
