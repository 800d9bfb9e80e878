"""Denies this process the network, and each Python that it starts: put this folder on PYTHONPATH.

What was attempted is written, a line each, into the file that ``DENIED_SOCKETS`` names. Sockets of
this machine are left alone: ranks, loggers and workers talk through them.
"""

import os
import sys

HERE = ("localhost", "::1", "", None)
WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
LOOKED_UP = ("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")


def _deny(event: str, arguments: tuple[object, ...]) -> None:
    if event not in WATCHED and event not in LOOKED_UP:
        return
    host = arguments[0] if event in ("socket.getaddrinfo", *LOOKED_UP) else arguments[1]
    if isinstance(host, tuple):
        host = host[0]
    elif host is not None and event in WATCHED[:3]:
        return  # a path: a socket of Unix
    host = host.decode() if isinstance(host, bytes) else host
    if host in HERE or str(host).startswith("127."):
        return
    with open(os.environ["DENIED_SOCKETS"], "a") as record:
        print(event, host, sys.argv[:3], file=record)
    raise OSError(f"the network is denied in this test: {event} {host}")


sys.addaudithook(_deny)
