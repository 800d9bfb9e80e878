"""Flags that are not supported, with the reason."""

import pytest

from llama_recipes_local.commands.sft.command_line import Flag
from llama_recipes_local.commands.sft.flags import known_names
from llama_recipes_local.commands.sft.unsupported_flags import UNSUPPORTED, drop_unsupported


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_flag_is_reported(name: str) -> None:
    supported, (problem,) = drop_unsupported(
        [Flag(name, ("x",)), Flag("seed", ("1",))], known_names()
    )
    assert supported == [Flag("seed", ("1",))]
    assert problem.what == f"--{name} x is not supported"
    assert problem.why and problem.fix


def test_an_unsupported_flag_may_be_false() -> None:
    off = [Flag("push_to_hub", ("False",)), Flag("trust_remote_code", ("false",))]
    assert drop_unsupported(off, known_names()) == (off, [])
    # TRL could not parse a flag that it has removed
    assert drop_unsupported([Flag("overwrite_output_dir", ("false",))], known_names())[0] == []


def test_every_flag_of_the_hub_is_unsupported() -> None:
    speaking = {name for name in known_names() if name.startswith(("hub_", "push_", "trackio_"))}
    assert len(speaking) > 5
    assert speaking <= UNSUPPORTED.keys()
