"""Ranks that meet, compare what they were given, and end together; each is a thread here."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llama_recipes_local.errors import TrainingError, UsageError
from llama_recipes_local.launch import Launch
from llama_recipes_local.parallel import Watch
from llama_recipes_local.parallel import peers as peers_module
from llama_recipes_local.parallel import watch as watch_module
from llama_recipes_local.parallel.peers import Beat, PeerEndedError, Peers

FACTS = {"--seed": "42", "the training data": "1f2e"}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for another rank waits until it comes: none of these tests is about the limit."""
    monkeypatch.setattr(peers_module, "SETTLE", 3600.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(act: Callable[[Peers], Any], ranks: int = 3) -> list[Any]:
    """Return what each rank's thread returned or raised, once all have met."""
    port = free_port()

    def as_rank(rank: int) -> Any:
        peers = Peers(Launch(rank, rank, ranks, "127.0.0.1", port))
        try:
            return act(peers)
        except Exception as error:
            return error
        finally:
            peers.leave()

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(as_rank, range(ranks)))


def test_ranks_that_were_given_the_same_agree() -> None:
    assert together(lambda peers: peers.agree("launch", FACTS)) == [None] * 3


@pytest.mark.parametrize("name", [*FACTS, "another"])
def test_a_difference_is_named_on_all_ranks_with_each_value(name: str) -> None:
    def agree(peers: Peers) -> None:
        peers.agree("launch", FACTS | ({name: "7"} if peers.rank == 1 else {}))

    for error in together(agree):
        assert isinstance(error, UsageError)
        (problem,) = error.problems
        assert problem.what == f"ranks differ in {name}"
        assert problem.why == f"ranks 0, 2 have {FACTS.get(name, 'nothing')}; rank 1 has 7"


def test_one_that_refuses_ends_the_others_and_is_read_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def start(peers: Peers) -> int:
        if peers.rank == 2:
            peers.settle("1 problem found", 2)
            return 2
        try:
            peers.agree("launch", FACTS)
        except PeerEndedError as error:
            peers.settle(str(error), error.EXIT_CODE)
            return error.EXIT_CODE
        return 0

    assert together(start) == [2, 2, 2]
    assert capfd.readouterr().err == "on rank 2: 1 problem found\n"


def test_what_all_refuse_alike_is_read_once(capfd: pytest.CaptureFixture[str]) -> None:
    together(lambda peers: peers.settle("1 problem found", 2))
    assert capfd.readouterr().err == "1 problem found\n"


def test_ranks_that_print_elsewhere_print_for_themselves(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = iter(range(9))
    monkeypatch.setattr(peers_module, "_terminal", lambda: [next(files)])
    together(lambda peers: peers.settle("1 problem found", 2), ranks=2)
    assert capfd.readouterr().err == "1 problem found\n" * 2


def test_a_rank_that_reports_is_not_ended_before_it_has_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The watch of a rank ends it where another has ended: here that of rank 1 alone."""
    monkeypatch.setattr(watch_module, "GRACE", 0.1)
    monkeypatch.setattr(watch_module, "BEAT", 0.05)
    exits: dict[int, int] = {}  # by the watch's thread, which would end only once
    ended = threading.Event()

    def end(code: int) -> None:
        exits[threading.get_ident()] = code
        ended.set()

    monkeypatch.setattr(os, "_exit", end)

    def train(peers: Peers) -> None:
        if peers.rank == 1:
            time.sleep(0.6)  # in which the other's watch would end it
        watch = Watch(peers)
        if peers.rank == 0:
            peers.settle("stopped: no space left on device", 1)
        ended.wait()
        watch.close()

    assert together(train, ranks=2) == [None, None]
    assert list(exits.values()) == [1]
    # torch may say too that the store of a rank that was not really ended is gone
    assert capfd.readouterr().err.count("stopped: no space left on device\n") == 1


def test_a_lost_connection_is_no_news_once_the_other_has_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "SILENT", 0.1)

    def train(peers: Peers) -> tuple[str, int] | None:
        watch = Watch(peers)
        if peers.rank == 0:
            peers.settle("stopped: no space left on device", 7)
            watch.close()
            return None
        while not peers.another_ended():
            time.sleep(0.01)
        lost = watch.loss(RuntimeError("gloo: Connection closed by peer [127.0.0.1]:1"))
        peers.settle(str(lost), 7)
        watch.close()
        assert lost is not None
        return str(lost), lost.EXIT_CODE

    assert together(train, ranks=2) == [None, ("", 7)]


def test_a_rank_that_does_not_answer_is_named_wherever_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What takes long and has no usual time, such as saving, is waited for, but not in vain."""
    for name, seconds in {"BEAT": 0.05, "SILENT": 0.3, "SAY_AFTER": 0.4}.items():
        monkeypatch.setattr(watch_module, name, seconds)

    named = threading.Event()

    def train(peers: Peers) -> None:
        watch = Watch(peers)
        watch.at("saving a checkpoint")
        if peers.rank == 1:  # it stays, and beats no more
            monkeypatch.setattr(watch, "_own_beat", lambda: Beat(0.0, 1, "x", False))
            named.wait()
        else:
            read_until("saving a checkpoint: waiting for rank 1, which does not answer", capfd)
            named.set()
        watch.close()

    assert together(train, ranks=2) == [None, None]


def read_until(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Wait until what was printed matches."""
    said = ""
    while not re.search(pattern, said):
        time.sleep(0.05)
        said += capfd.readouterr().err


def test_a_rank_that_is_there_twice_is_refused() -> None:
    port = free_port()
    first = Peers(Launch(0, 0, 1, "127.0.0.1", port))
    with pytest.raises(UsageError, match="RANK=0 twice"):
        Peers(Launch(0, 0, 1, "127.0.0.1", port))
    first.leave()


def test_a_rank_that_is_late_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers_module, "SAY_AFTER", 0.1)

    def agree(peers: Peers) -> None:
        if peers.rank == 1:
            read_until(r"--> waiting for rank 1, which started \(\d+ s\)\n", capfd)
        peers.agree("launch", FACTS)

    assert together(agree, ranks=2) == [None, None]


class Clock:
    """A time that passes while one sleeps, and only then."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_rank_0_is_waited_for_in_lines_of_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers_module, "time", Clock())
    port = free_port()
    with pytest.raises(TrainingError, match=f"^stopped: waiting for rank 0 at 127.0.0.1:{port}, "):
        Peers(Launch(1, 1, 2, "127.0.0.1", port), patience=30)
    said = f"--> waiting for rank 0 at 127.0.0.1:{port}, {{}} s: Connection refused"
    assert capfd.readouterr().err.splitlines() == [said.format(seconds) for seconds in (10, 20)]
