"""A value that is none of the choices, or out of its range."""

from llama_recipes_local.configs.values import choice, out_of_range
from llama_recipes_local.fields import ABOVE_0, AT_LEAST_0


def test_leaving_a_flag_empty_is_no_choice_to_name() -> None:
    (problem,) = choice("preset", "lora", ("", "qlora"))
    assert problem.why == "the choices are qlora"


def test_of_a_number_out_of_its_range_the_range_is_told() -> None:
    assert out_of_range("eval_steps", 0, AT_LEAST_0) == []
    (problem,) = out_of_range("lr", 0.0, ABOVE_0)
    told = (problem.what, problem.why, problem.fix)
    assert told == ("--lr is 0.0", "it must be above 0", "give it above 0")
