"""A chat template that runs long, recurses or fills the memory is stopped, with a problem."""

import resource
import signal
import threading
import time
from typing import Any

import pytest

from llama_recipes_local.datasets import template_limits
from llama_recipes_local.datasets.templates import render_turns
from llama_recipes_local.errors import UsageError

SECONDS = template_limits.SECONDS
TURNS = [{"role": "user", "content": "Hi"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "nested loops": (LOOPS, "it was stopped after"),
    "a loop in a macro": (f"{{% macro m() %}}{LOOPS}{{% endmacro %}}{{{{ m() }}}}", "was stopped"),
    "a power": ("{{ messages|length + 9 ** (9 ** 9) }}", "it was stopped after"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    "brackets": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", ""),
    "blocks": ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, ""),
    "a text without end": ("{{ 'a' * 10 ** 12 }}", "it took more than 2 GiB of memory"),
    "a text that is doubled": (
        "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}"
        "{% endfor %}",
        "it took more than 2 GiB of memory",
    ),
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "SECONDS", 0.2)


SLOW = ("a power", "a text that is doubled")
CASES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in HOSTILE]


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_template_is_stopped(
    name: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, why = HOSTILE[name]
    if "stopped" not in why:  # a collection of garbage alone may take the time of the others
        monkeypatch.setattr(template_limits, "SECONDS", SECONDS)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    for most in (20, 0.1):  # the second time it is not tried again
        start = time.process_time()
        with pytest.raises(UsageError) as raised:
            render_turns(TURNS, template, tokenizer)
        assert why in str(raised.value)
        assert time.process_time() - start < most
        if "stopped" not in why and "memory" not in why:
            break
    assert "the chat template cannot be used" in str(raised.value)
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL


def test_a_usual_template_is_rendered_in_any_thread(tokenizer: Any) -> None:
    texts: list[str] = []
    render = "{{ messages[0].content }}"
    thread = threading.Thread(target=lambda: texts.append(render_turns(TURNS, render, tokenizer)))
    thread.start()
    thread.join()
    assert texts == ["Hi"] == [render_turns(TURNS, render, tokenizer)]
