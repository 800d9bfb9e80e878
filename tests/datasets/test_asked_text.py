"""A prompt of the data, as a user would type it, to try what was trained on it."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.run.resolution import resolve

ASKED = "What is the capital of Peru?"
LONG = "very " * 40 + "long?"
CHAT = {"local_dataset.template": "llama2"}


def turns(*said: str, system: str = "") -> dict[str, Any]:
    roles = ("user", "assistant") * 9
    first = [{"role": "system", "content": system}] if system else []
    said_by = zip(roles, said, strict=False)
    return {"messages": [*first, *({"role": role, "content": text} for role, text in said_by)]}


@pytest.mark.parametrize(
    ("rows", "flags", "expected"),
    [
        ([{"prompt": ASKED, "completion": "Lima"}], {}, ASKED),
        ([{"prompt": f"  {ASKED} ", "completion": "Lima"}], {}, f"  {ASKED} "),
        ([{"instruction": ASKED, "output": "Lima"}], {}, ASKED),
        ([turns(ASKED, "Lima", "And of Chile?", "Santiago")], CHAT, ASKED),
        ([{"prompt": "秘鲁的首都是哪里", "completion": "利马"}], {}, "秘鲁的首都是哪里"),
        # a long one, one of several lines, one with a system message, and then one to try
        ([{"prompt": text, "completion": "x"} for text in (LONG, "a\nb", ASKED)], {}, ASKED),
        ([turns("Hi", "x", system="Be kind."), turns(ASKED, "Lima")], CHAT, ASKED),
        ([turns("Hi", "x", system="Be kind.")], CHAT, ""),
        ([{"text": ASKED}], {}, ""),
    ],
)
def test_it_is_what_makes_a_rows_own_tokens(
    rows: list[dict[str, Any]],
    flags: dict[str, Any],
    expected: str,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    paths = {f"local_dataset.{name}": str(path) for name in ("data_path", "validation_path")}
    named = {"model_name": str(tiny_model), "dataset": "local_dataset"}
    assert prepare_data(resolve(named | paths | flags), parts=("test",)).example == expected


def test_a_data_set_of_this_package_has_its_own(tiny_run: dict[str, Any]) -> None:
    assert prepare_data(resolve(tiny_run)).example == "She go to school yesterday."
