"""Watches the other ranks while this one waits in a collective.

It finds out which rank is waited for, and whether one has ended. The main thread reports where it
is (``Watch.at``). A thread sends this rank's beats and receives those of the others; it may hang
with the store. A second thread judges what was received, and never waits.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from torch.distributed import DistError

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.launch import launch
from llama_recipes_local.parallel.peers import Beat, PeerEndedError, Peers, ranks_in_words

BEAT = 0.5  # seconds
SILENT = 3.0  # seconds without a beat after which a rank does not answer
GRACE = 3.0  # seconds for this rank to end by itself when another has
SAY_AFTER = 10.0  # seconds, or so many usual steps if that is longer
USUAL_STEPS = 10
UNUSUAL = 60.0  # seconds for what has no usual time, such as the first step, or saving
STEPS_KEPT = 20
# in what torch and gloo raise when a connection is lost or a time is up
SIGNS_OF_LOSS = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
_runs = itertools.count()
"""Numbers this process's runs: a notebook may train twice, and the store keeps what was said."""
WAITS = (f"{os.sep}torch{os.sep}distributed{os.sep}", f"{os.sep}process_group.py")


@dataclass
class _Heard:
    """The last beat of another rank, and when it arrived."""

    beat: Beat
    when: float


@dataclass
class _Place:
    """Where the main thread is, since when, and how often it has reported a place."""

    what: str = "starting"
    since: float = field(default_factory=time.monotonic)
    count: int = 0
    timed: bool = False


class Watch:
    """Watches the other ranks from the moment they meet until ``close``."""

    def __init__(self, peers: Peers) -> None:
        """Begin to watch."""
        self.peers = peers
        self._place = _Place()
        self._steps: deque[float] = deque(maxlen=STEPS_KEPT)
        self._heard: dict[int, _Heard] = {}
        self._asked = time.monotonic()
        self._ended_at = 0.0
        self._said = 0.0  # seconds in this place at which the next line is due
        self._listening = False
        self._closed = threading.Event()
        self._main = threading.get_ident()
        self._threads = [
            threading.Thread(target=self._repeat, args=(act,), daemon=True)
            for act in (self._beat, self._judge)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop watching; return when the other ranks no longer need this rank's store."""
        self._closed.set()
        for thread in self._threads:
            thread.join(GRACE)
        self.peers.leave()

    def at(self, what: str, timed: bool = False) -> None:
        """Report where the main thread is; all ranks report the same places.

        Args:
            what: as in "rank 1 is in ...".
            timed: whether it takes about as long as the last such place: a step, for example.
        """
        now, before = time.monotonic(), self._place
        if timed and before.timed:
            self._steps.append(now - before.since)
        self._place = _Place(what, now, before.count + 1, timed)

    @property
    def since(self) -> float:
        """When the main thread last reported where it is, on ``time.monotonic``'s clock."""
        return self._place.since

    def patience(self, least: float) -> float:
        """Return how many seconds in one place are suspicious, at least ``least``."""
        if self._place.timed and self._steps:
            return max(least, USUAL_STEPS * max(self._steps))
        return least if self.silent() else UNUSUAL

    def listen(self) -> None:
        """Receive the others' beats from now on; while all goes well, they are not requested."""
        if not self._listening:
            self._asked = time.monotonic()
            self._listening = True

    def silent(self) -> list[int]:
        """Return the ranks that do not answer; none until there was time to receive answers."""
        now = time.monotonic()
        if not self._listening or now - self._asked < SILENT:
            return []
        others = (rank for rank in range(self.peers.world_size) if rank != self.peers.rank)
        return [
            rank
            for rank in others
            if rank not in self._heard or now - self._heard[rank].when > SILENT
        ]

    def loss(self, error: BaseException) -> TrainingError | None:
        """Return a message if an error is due to another rank that is gone; None for other errors.

        It waits some seconds to find out which ranks still answer.
        """
        text = str(error)
        lost = isinstance(error, DistError) or any(sign in text for sign in SIGNS_OF_LOSS)
        if not lost or not isinstance(error, RuntimeError):
            return None
        self.listen()
        time.sleep(SILENT + 2 * BEAT)
        with contextlib.suppress(DistError):
            if ended := self.peers.ended():  # it has reported why
                return PeerEndedError(max(code for _, code in ended.values()))
        who = self.waited_for() or "another rank, which has ended or does not answer"
        return TrainingError(
            f"stopped in {self._place.what}: this rank waited for {who}\n"
            f"   why: {text.splitlines()[0]:.200}\n"
            "   fix: see what that rank printed; --resume_from_checkpoint auto in the same command "
            "resumes from the last checkpoint"
        )

    def waited_for(self) -> str:
        """Return which ranks this one waits for, as in "rank 1, which ..."; "" if unknown."""
        silent = self.silent()
        if silent:
            return f"{ranks_in_words(silent)}, which {_do(silent)} not answer"
        beats = {rank: heard.beat for rank, heard in self._heard.items()}
        own = self._own_beat()
        last = max([own.places, *(beat.places for beat in beats.values())])
        late = [rank for rank, beat in beats.items() if beat.places < last]
        if not late and own.waits and own.places == last:
            late = [rank for rank, beat in beats.items() if not beat.waits]
        if not late or own.places < last:
            return ""
        return f"{ranks_in_words(late)}, still in {beats[late[0]].place}"

    def _beat(self) -> None:
        """Send this rank's beat and receive the others'."""
        self.peers.beat(self._own_beat())
        if self._listening:
            now = time.monotonic()
            for rank, beat in self.peers.beats().items():
                before = self._heard.get(rank)
                if before is None or before.beat.number != beat.number:
                    self._heard[rank] = _Heard(beat, now)
        if not self._ended_at and self.peers.another_ended():
            self._ended_at = time.monotonic()

    def _own_beat(self) -> Beat:
        place = self._place
        return Beat(time.monotonic(), place.count, place.what, _waits(self._main))

    def _judge(self) -> None:
        """End this process if another rank has ended; print a note if a wait is too long."""
        now = time.monotonic()
        if self._ended_at and now - self._ended_at > GRACE:
            self._end_with_others()
        waited = now - self.since
        patience = self.patience(SAY_AFTER)
        if waited > patience / 2 or (waited > SAY_AFTER and not self._place.timed):
            self.listen()
        elif waited < SILENT:
            self._said = 0.0
        if waited > max(patience, self._said):
            late = self.waited_for()
            if late or waited > UNUSUAL:
                self._said = 2 * waited
                self._say(late, waited)

    def _say(self, late: str, waited: float) -> None:
        usual = f", usually {max(self._steps):.1f} s" if self._place.timed and self._steps else ""
        what = f"{waited:.0f} s in {self._place.what}{usual}"
        if late and self.peers.speaks(self.silent()):
            print(f"\n--> {what}: waiting for {late}", file=sys.stderr, flush=True)

    def _end_with_others(self) -> None:
        with contextlib.suppress(DistError):
            code = max(code for _, code in self.peers.ended().values())
            if self.peers.settle("", code) is None:
                return  # the main thread ends this rank, and may have more to say
            self.peers.leave()
            os._exit(code)

    def _repeat(self, act: Callable[[], None]) -> None:
        try:
            while not self._closed.wait(BEAT):
                act()
        except DistError:
            pass  # the store is gone: its process has ended, and so do collectives


def watch_peers() -> Watch | None:
    """Meet the other ranks and watch them; return None for a process that is alone.

    Raises:
        UsageError: if another process has the same rank, or the port is taken.
        TrainingError: if rank 0 does not appear.
    """
    launched = launch()
    if launched is None or launched.world_size == 1:
        return None
    return Watch(Peers(launched, number=next(_runs)))


def _waits(thread: int | None) -> bool:
    """Return whether a thread is in a collective, judged by its innermost functions."""
    frame: FrameType | None = sys._current_frames().get(thread or 0)
    for _ in range(6):
        if frame is None:
            return False
        if any(place in frame.f_code.co_filename for place in WAITS):
            return True
        frame = frame.f_back
    return False


def _do(ranks: list[int]) -> str:
    return "does" if len(ranks) == 1 else "do"
