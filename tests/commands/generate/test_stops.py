"""What ends a completion, and whether one has ended."""

from llama_recipes_local.commands.generate.stopping import Stops


def test_a_completion_has_ended_at_a_token_or_a_text() -> None:
    stops = Stops((2, 5), ("### Human:",))
    assert stops.ended([7, 5, 0, 0], "Yes")
    assert stops.ended([7, 8], "Yes### Human: and")
    assert not stops.ended([7, 8], "Yes### Hu")
    assert not Stops().ended([2], "Yes")
