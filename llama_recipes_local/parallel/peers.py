"""What the ranks of a run exchange before they train, and when one of them ends.

They meet in a store (torch's ``TCPStore``, a small table that torchrun or rank 0 serves) when they
start, long before the process group exists. So ranks with different settings are found before
anything is tokenised, and no rank waits for one that has refused to start.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore

from llama_recipes_local.errors import Problem, TrainingError, UsageError, refusal
from llama_recipes_local.launch import Launch
from llama_recipes_local.parallel.process_group import PATIENCE

SAY_AFTER = 10.0  # seconds of waiting before the ranks that are waited for are named
SETTLE = 5.0  # seconds that a rank which ends gives the others to say what they found
POLL = 0.02  # seconds, or a thousandth for each rank if that is longer: one process answers all
CONNECT = 5.0  # seconds; for an answer of the store a tenth more for each rank


class PeerEndedError(TrainingError):
    """Another rank has ended; ``Peers.settle`` reports why."""

    def __init__(self, code: int) -> None:
        """Store the other rank's exit code."""
        super().__init__()
        self.EXIT_CODE = code


class Beat(NamedTuple):
    """A sign of life that a rank sends to the others at intervals.

    Attributes:
        number: different in each beat.
        places: how many places its main thread has been at.
        place: the place where its main thread is now.
        waits: whether it waits for other ranks there.
    """

    number: float
    places: int
    place: str
    waits: bool


class Peers:
    """The ranks of a run, seen from one of them."""

    def __init__(self, launch: Launch, patience: float = PATIENCE, number: int = 0) -> None:
        """Meet the others.

        Args:
            launch: which rank this is.
            patience: seconds to wait for another rank.
            number: number of this run among those of this process.

        Raises:
            UsageError: if another process has the same rank, or the port is taken.
            TrainingError: if rank 0 does not appear.
        """
        self.rank, self.world_size = launch.rank, launch.world_size
        self.patience = patience
        self._poll = max(POLL, launch.world_size / 1000)
        self._settled = False
        self._lost: set[int] = set()  # that did not end with the others
        self._lock = threading.Lock()
        self._launch = launch
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._serves = launch.rank == 0 and not by_torchrun
        self._store = PrefixStore(f"peers-{_attempt()}-{number}", self._connect())
        if self._store.add(f"rank-{self.rank}", 1) > 1:
            raise refusal(
                f"RANK={self.rank} twice",
                f"another process that meets at {launch.host}:{launch.port} is rank {self.rank}",
                "number the ranks from 0 to WORLD_SIZE - 1, each once",
            )
        self._terminals: dict[int, list[object]] = {self.rank: _terminal()}
        self._set("terminal", self._terminals[self.rank])

    def agree(self, topic: str, facts: Mapping[str, str]) -> None:
        """Compare this rank's facts with those of all others; all ranks call this together.

        Args:
            topic: what the facts are about, a word.
            facts: values, by the names that users know.

        Raises:
            UsageError: if ranks differ, on all of them, with each fact that differs.
            PeerEndedError: if another rank has refused to start.
            TrainingError: if a rank does not appear.
        """
        own = {"WORLD_SIZE": str(self.world_size), **facts}
        text = json.dumps(own, sort_keys=True)
        self._set(topic, own)
        self._set(f"{topic}-hash", hashlib.sha256(text.encode()).hexdigest())
        hashes = self._gather(f"{topic}-hash")
        self._find_terminals()
        if len(set(hashes)) > 1:  # of many ranks only the hashes are small enough to be sent to all
            raise UsageError(list(_differences(self._store.multi_get(self._keys(topic)))))

    def settle(self, text: str, code: int) -> str | None:
        """Report why this rank ends, together with all others that end; one thread does this.

        On a terminal or file that ranks share, each text is printed once. The call returns when the
        others have printed too, or after some seconds: if a rank exited earlier, torchrun or the
        loss of the store could end the others before they report.

        Args:
            text: the report; "" if this rank ends because another does.
            code: the exit code.

        Returns:
            What this rank has printed; "" if another one did. None if another thread reports.
        """
        with self._lock:
            if self._settled:
                return None
            self._settled = True
        texts: dict[int, str] = {self.rank: text}
        with contextlib.suppress(DistError):
            self._set("ended", [text, code])
            self._store.set("anyone-ended", "")
            self._wait(self._keys("ended"), SETTLE)
            self._find_terminals()
            texts |= {rank: text for rank, (text, _) in self.ended().items()}
            self._lost = set(range(self.world_size)) - set(texts)
        printed = ""
        if any(texts.values()) and self.speaks(set(self._terminals) - set(texts)):
            printed = _joined(texts, self.rank)
            _say(printed)
        with contextlib.suppress(DistError):
            self._set("printed", "")
            self._wait([self._key("printed", rank) for rank in texts], SETTLE)
        return printed

    def leave(self) -> None:
        """Stop exchanging messages; the rank that serves the store leaves last."""
        with contextlib.suppress(DistError):
            self._set("left", "")
            if self._serves:
                left = set(range(self.world_size)) - self._lost
                self._wait([self._key("left", rank) for rank in left], SETTLE)

    def ended(self) -> dict[int, tuple[str, int]]:
        """Return the report and the exit code of each rank that ends, by rank."""
        ranks = [rank for rank in range(self.world_size) if self._has("ended", rank)]
        return {rank: json.loads(self._store.get(self._key("ended", rank))) for rank in ranks}

    def another_ended(self) -> bool:
        """Return whether another rank has ended and this one has not."""
        return not self._settled and self._store.check(["anyone-ended"])

    def beat(self, beat: Beat) -> None:
        """Send this rank's beat to the others."""
        self._set("beat", beat)

    def beats(self) -> dict[int, Beat]:
        """Return the last beat of each other rank that has sent one."""
        others = (rank for rank in range(self.world_size) if rank != self.rank)
        return {
            rank: Beat(*json.loads(self._store.get(self._key("beat", rank))))
            for rank in others
            if self._has("beat", rank)
        }

    def speaks(self, silent: Container[int] = ()) -> bool:
        """Return whether this rank prints for those that share its terminal: the first one does.

        Args:
            silent: ranks that cannot print.
        """
        own = self._terminals.get(self.rank)
        sharing = (rank for rank, terminal in self._terminals.items() if terminal == own)
        return self.rank == min((rank for rank in sharing if rank not in silent), default=-1)

    def _find_terminals(self) -> None:
        for rank in range(self.world_size):
            if rank not in self._terminals and self._has("terminal", rank):
                self._terminals[rank] = json.loads(self._store.get(self._key("terminal", rank)))

    def _gather(self, topic: str) -> list[bytes]:
        """Return the value that each rank has set; after a while, print which ranks are missing."""
        keys, began, said = self._keys(topic), time.monotonic(), SAY_AFTER
        while not self._wait(keys, 0.2):
            waited = time.monotonic() - began
            self._raise_if_ended()
            self._find_terminals()
            missing = self._missing(topic)
            if waited > said and missing:
                said *= 2
                _say(f"--> {missing} ({waited:.0f} s)", self.speaks())
            if waited > self.patience and missing:
                raise TrainingError(
                    f"stopped: {missing}, {waited:.0f} s\n   fix: see what it does; "
                    "more than --process_group_timeout SECONDS waits longer"
                )
        return self._store.multi_get(keys)

    def _raise_if_ended(self) -> None:
        ended = self.ended()
        if ended:
            raise PeerEndedError(max(code for _, code in ended.values()))

    def _missing(self, topic: str) -> str:
        ranks = [rank for rank in range(self.world_size) if not self._has(topic, rank)]
        started = [rank for rank in ranks if self._has("terminal", rank)]
        absent = [rank for rank in ranks if rank not in started]
        parts = []
        if started:
            parts.append(f"waiting for {ranks_in_words(started)}, which started")
        if absent:
            parts.append(f"waiting for {ranks_in_words(absent)} to start")
        return "; ".join(parts)

    def _key(self, topic: str, rank: int) -> str:
        return f"{topic}/{rank}"

    def _keys(self, topic: str) -> list[str]:
        return [self._key(topic, rank) for rank in range(self.world_size)]

    def _has(self, topic: str, rank: int) -> bool:
        return self._store.check([self._key(topic, rank)])

    def _set(self, topic: str, value: object) -> None:
        self._store.set(self._key(topic, self.rank), json.dumps(value))

    def _wait(self, keys: list[str], seconds: float) -> bool:
        """Return whether all keys are present within some seconds.

        The store's own ``wait`` would print a line of C++ at each timeout.
        """
        until = time.monotonic() + seconds
        while not self._store.check(keys):
            if time.monotonic() > until:
                return False
            time.sleep(self._poll)
        return True

    def _connect(self) -> TCPStore:
        launch = self._launch
        if not self._serves:
            self._await_server()
        try:
            store = TCPStore(
                launch.host,
                launch.port,
                is_master=self._serves,
                timeout=timedelta(seconds=self.patience),
                wait_for_workers=False,
                multi_tenant=True,
            )
            store.set_timeout(timedelta(seconds=CONNECT + launch.world_size / 10))
            return store
        except DistError as error:
            why = str(error).splitlines()[0]
            if not self._serves:
                raise TrainingError(
                    f"stopped: rank 0 does not answer at {launch.host}:{launch.port}: {why}"
                ) from error
            raise refusal(
                f"MASTER_ADDR={launch.host} MASTER_PORT={launch.port} for rank 0",
                why,
                "name an address of this host and a port that is free",
            ) from error

    def _await_server(self) -> None:
        """Wait until the store accepts connections; its own client would print lines of C++."""
        host, port = self._launch.host, self._launch.port
        began, said = time.monotonic(), SAY_AFTER
        while True:
            try:
                socket.create_connection((host, port), CONNECT).close()
                return
            except OSError as error:
                waited = time.monotonic() - began
                where = f"rank 0 at {host}:{port}, {waited:.0f} s: {error.strerror or error}"
            if waited > self.patience:
                raise TrainingError(f"stopped: waiting for {where}")
            if waited > said:
                said *= 2
                _say(f"--> waiting for {where}")
            time.sleep(POLL)


def _say(text: str, speaks: bool = True) -> None:
    if speaks:  # in one write: another rank's could come between a text and the end of its line
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def ranks_in_words(ranks: list[int]) -> str:
    """Return ranks as a sentence has them."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _differences(texts: Iterable[bytes]) -> Iterator[Problem]:
    """Yield a problem for each fact that differs, with the ranks that have each value.

    Args:
        texts: each rank's facts, in JSON.
    """
    found: list[dict[str, str]] = [json.loads(text) for text in texts]
    for name in dict.fromkeys(name for facts in found for name in facts):
        having: dict[str, list[int]] = {}
        for rank, facts in enumerate(found):
            having.setdefault(facts.get(name, "nothing"), []).append(rank)
        if len(having) > 1:
            each = [f"{_have(ranks)} {value:.200}" for value, ranks in having.items()]
            yield Problem(
                f"ranks differ in {name}",
                "; ".join(each),
                "start all ranks with the same command, files and versions",
            )


def _have(ranks: list[int]) -> str:
    return f"{ranks_in_words(ranks)} {'have' if len(ranks) > 1 else 'has'}"


def _joined(texts: Mapping[int, str], speaker: int) -> str:
    """Return each text once: the speaker's as it is, others with the ranks that report them."""
    saying: dict[str, list[int]] = {}
    for rank in sorted(texts):
        saying.setdefault(texts[rank], []).append(rank)
    own = texts[speaker]
    parts = [own] if own else []
    for text, ranks in saying.items():
        if text and text != own:
            parts.append(f"on {ranks_in_words(ranks)}: {text}")
    return "\n".join(parts)


def _terminal() -> list[object]:
    """Return an identifier of where a rank prints: its host, and the file or pipe of stderr."""
    try:
        status = os.fstat(2)
    except OSError:
        return [socket.gethostname(), os.getpid()]
    return [socket.gethostname(), status.st_dev, status.st_ino]


def _attempt() -> str:
    """Return the number of torchrun's restarts: its store outlives them."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
