"""Hostile flags, environment, templates and records of a run: used as they are, or refused."""

import json
import os
import random
import typing
from pathlib import Path
from typing import Any

import pytest
from helpers.fuzzing import HOSTILE, Case, SilentError, damaged, damaged_json, fuzz

from llama_recipes_local import launch
from llama_recipes_local.commands.evaluate.results import read_result
from llama_recipes_local.datasets.prompt_template import read_prompt_template
from llama_recipes_local.datasets.templates import TEMPLATES, render_turns
from llama_recipes_local.errors import refuse
from llama_recipes_local.fields import field_names
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.preflight import preflight
from llama_recipes_local.preflight.flags import known_flags
from llama_recipes_local.run import Run
from llama_recipes_local.typed_words import Typed, read_words

pytestmark = pytest.mark.slow

TEXTS = (
    *(str(value) for value in HOSTILE if isinstance(value, (str, int, float))),
    *(
        "run#1",
        "1e3",
        "007",
        "'a'",
        '"a"',
        "a b",
        "=",
        "--lr",
        "-1",
        "()",
        "[a, b]",
        "True",
        "0x10",
    ),
    *("None", "lambda: 0", "1_000", "é" * 300, "\udcff", "a/../b", "{{}}", "%s", "$HOME", "*"),
)


def text_fields(run: Run) -> list[tuple[Any, str]]:
    """The fields of a run that take any text, by the configuration and the name."""
    return [
        (config, name)
        for config in run.configurations()
        for name in field_names(config)
        if typing.get_type_hints(type(config))[name] in (str, str | None)
    ]


def test_flags(tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name for name in known_flags() if not name.endswith("custom_dataset.file")]
    usual = {"use_peft": True, "context_length": 64, "output_dir": "out", **tiny_run}

    def attack(case: Case) -> None:
        rng = case.random
        flags: list[str] = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            name = rng.choice(names) if rng.random() < 0.9 else rng.choice(TEXTS)
            text = rng.choice(TEXTS)
            flags += rng.choice([[f"--{name}={text}"], [f"--{name}", text], [f"--{name}"]])
        case.given.append(flags)
        words = [f"--{name}={value}" for name, value in usual.items()] + flags
        stray, read = read_words(words)
        run = preflight(stray, read)
        for config, name in text_fields(run):
            typed = read.get(f"{type(config).__name__}.{name}", read.get(name))
            kept = getattr(config, name)
            words_of = (typed, str(typed).lower(), os.path.expanduser(str(typed)), None)
            if isinstance(typed, Typed) and kept not in words_of:
                raise SilentError(f"{name} is {kept!r}, and was given as {typed!r}")
        if list(tmp_path.iterdir()):
            raise SilentError(f"preflight wrote {list(tmp_path.iterdir())}")

    fuzz("flags", 250, attack)


NUMBERS = ("0", "1", "2", "4", "29500", "-1", "x", "", " 1", "1.0", "\u0663", "9" * 5000, "\x1b")


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(case: Case) -> None:
        rng = case.random
        given = {
            name: rng.choice(
                ["0", "1", "2", "4", "29500", "-1", "x", "", " 1", "1.0", "٣", "9" * 5000]
            )
            for name in rng.sample(launch.VARIABLES, rng.randrange(len(launch.VARIABLES) + 1))
        }
        case.given.append(given)
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            case.problems = launch.find_problems()
            rank, size = launch.rank(), launch.world_size()
        if case.problems and (rank, size) != (0, 1):
            raise SilentError(f"rank {rank} of {size} in spite of {case.problems}")
        if not 0 <= rank < size:
            raise SilentError(f"rank {rank} of {size}")

    assert fuzz("environment", 400, attack)["used"] > 50


PARTS = (
    *("{{", "}}", "{%", "%}", "{%-", "-%}", "{#", "#}", " ", "(", ")", "[", "]", "|", ".", "'"),
    *("messages", "message", "bos_token", "eos_token", "add_generation_prompt", "tools", "loop"),
    *("for", "in", "endfor", "if", "else", "endif", "set", "macro", "endmacro", "call", "endcall"),
    *("range(99999)", "range(10)", "namespace()", "joiner()", "cycler(1)", "dict()", "lipsum()"),
    *("__class__", "__globals__", "self", "caller()", "raise_exception('x')", "strftime_now('%Y')"),
    *("0", "1", "-1", "1/0", "10**9", "'a'*10**7", "none", "true", "==", "+", "~", "not", "and"),
    *(
        "|tojson",
        "|trim",
        "|length",
        "|join",
        "|int",
        "|safe",
        "|xyz",
        "|map('upper')",
        "|attr('x')",
    ),
    *("{% generation %}", "{% endgeneration %}", "{% include 'x' %}", "{% import 'x' as y %}"),
    *(
        "{% break %}",
        "{% do 1 %}",
        "{{ messages[99] }}",
        "{{ messages.x.y }}",
        "\ud800",
        "\0",
        "\x1b",
    ),
    "{% for message in messages %}{{ message.content }}{% endfor %}",
)


def made_template(rng: random.Random) -> str:
    if rng.random() < 0.5:
        sound = rng.choice(list(TEMPLATES.values())).text
        return damaged(rng, sound.encode()).decode("utf-8", "surrogateescape")
    return " ".join(rng.choice(PARTS) for _ in range(rng.randrange(12)))


def test_chat_templates(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_recipes_local.datasets import template_limits

    monkeypatch.setattr(template_limits, "SECONDS", 0.2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    def attack(case: Case) -> None:
        template = made_template(case.random)
        case.given.append(template)
        if not isinstance(render_turns(turns, template, tokenizer), str):
            raise SilentError("it is no text")

    assert fuzz("chat templates", 700, attack)["used"] > 50


def test_records_of_runs(tmp_path: Path) -> None:
    template = {"kind": "prompt", "template": "Say {}", "complete": False, "begins": True}
    result = {
        "about": {"model": "m"},
        "asked": ["loss"],
        "metrics": {"loss": {"value": 1.0, "low": 0.5, "high": 1.5}},
        "documents": [{"key": "a", "loss": 1.0, "tokens": 2}],
        "answers": [],
    }
    path = tmp_path / "file.json"

    def attack(case: Case) -> None:
        read, value = case.random.choice([(read_prompt_template, template), (read_result, result)])
        path.write_bytes(data := damaged_json(case.random, value))
        case.given += [read.__name__, data]
        read(path)

    fuzz("records of runs", 300, attack)


def test_logs_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from llama_recipes_local.training.loggers import _lines_up_to

    lines = [json.dumps({"step": step, "loss": 1.0}).encode() for step in range(1, 5)]
    path = tmp_path / "metrics.jsonl"

    def attack(case: Case) -> None:
        place = case.random.randrange(len(lines))
        broken = [*lines[:place], damaged(case.random, lines[place]), *lines[place + 1 :]]
        path.write_bytes(b"\n".join(broken) + b"\n")
        case.given.append(broken)
        kept = [line.encode() for line in _lines_up_to(path, 4)]
        whole = [line + b"\n" for line in lines[:place] + lines[place + 1 :]]
        if not set(whole) <= set(kept):
            raise SilentError(f"kept {kept}")
        capsys.readouterr()
        refuse([])

    fuzz("metrics.jsonl", 300, attack)
