"""Flags that are not taken, with the reason."""

import pytest

from llama_recipes_local.commands.sft.command_line import Flag
from llama_recipes_local.commands.sft.flags import known_names
from llama_recipes_local.commands.sft.unsupported_flags import REFUSED, refuse


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    taken, (problem,) = refuse([Flag(name, ("x",)), Flag("seed", ("1",))], known_names())
    assert taken == [Flag("seed", ("1",))]
    assert problem.what == f"--{name} x is not taken"
    assert problem.why and problem.fix


def test_no_to_what_is_refused_is_no_mistake() -> None:
    off = [Flag("push_to_hub", ("False",)), Flag("trust_remote_code", ("false",))]
    assert refuse(off, known_names()) == (off, [])
    # what TRL does not know any longer could not be parsed
    assert refuse([Flag("overwrite_output_dir", ("false",))], known_names())[0] == []


def test_whatever_speaks_of_the_hub_is_refused() -> None:
    speaking = {name for name in known_names() if name.startswith(("hub_", "push_", "trackio_"))}
    assert len(speaking) > 5
    assert speaking <= REFUSED.keys()
