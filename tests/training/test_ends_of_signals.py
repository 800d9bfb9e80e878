"""What handled signals leave in the process: neither a thread nor a handler."""

import signal

import pytest

from llama_recipes_local.training.signals import SIGNALS, Signals


def test_the_thread_ends_though_a_worker_has_a_copy_of_its_socket() -> None:
    with Signals(enabled=True) as received:
        assert received._ringer is not None and received._bell is not None
        copy = received._ringer.dup()
    with copy:
        assert not received._thread.is_alive()
        assert received._bell.fileno() == -1


def test_an_interrupt_at_the_end_leaves_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook, whose next SIGTERM would be noted by a run that is over."""
    before = [signal.getsignal(each) for each in SIGNALS]
    received = Signals(enabled=True, called=True)
    join = received._thread.join

    def interrupted() -> None:
        join()
        raise KeyboardInterrupt

    monkeypatch.setattr(received._thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt), received:
        pass
    assert [signal.getsignal(each) for each in SIGNALS] == before
