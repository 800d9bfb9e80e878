"""What a signal does while another rank hangs; a stand-in for the watch says that it does."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from llama_recipes_local.errors import InterruptedRun
from llama_recipes_local.training import signals
from llama_recipes_local.training.signals import Signals


@dataclass
class Peers:
    def speaks(self, silent: list[int]) -> bool:
        return True


@dataclass
class HangingRank:
    """Looks like ``parallel.Watch`` while rank 1 does not answer."""

    since: float
    ranks: list[int]
    peers: Peers
    judged: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def listen(self) -> None: ...

    def silent(self) -> list[int]:
        self.calls += 1
        if self.calls == 3:  # the first judgement has come to its end
            self.judged.set()
        return self.ranks

    def patience(self, least: float) -> float:
        return 60.0

    def waited_for(self) -> str:
        return "rank 1, which does not answer"


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    monkeypatch.setattr(signals, "SAVES_WITHIN", 0.0)
    monkeypatch.setattr(signals, "POLL", 0.05)
    return found


@pytest.mark.parametrize("ranks", [[1], []])
def test_sigterm_ends_a_run_where_a_rank_hangs_and_no_other(
    ranks: list[int], exits: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    watch: Any = HangingRank(time.monotonic(), ranks, Peers())
    with Signals(enabled=True, watch=watch) as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.judged.wait(60)
    assert received.received is signal.SIGTERM
    said = capfd.readouterr().err
    assert "--> SIGTERM: saving at the next step" in said
    assert exits[:1] == ([InterruptedRun.EXIT_CODE] if ranks else [])
    assert ("stopped without saving: this rank waited for rank 1" in said) == bool(ranks)
