"""A value that is not one of the choices, or out of its range."""

from llama_recipes_local.configs.values import choice, out_of_range
from llama_recipes_local.fields import ABOVE_0, AT_LEAST_0, Choices


def test_the_empty_choice_is_not_listed() -> None:
    (problem,) = choice("preset", "lora", Choices("", "qlora"))
    assert problem.why == "the choices are qlora"


def test_where_no_choice_is_near_the_fields_own_fix_is_given() -> None:
    known = Choices("alpaca", otherwise="--dataset PATH", also=["alpacas"])
    assert choice("dataset", "nosuch", known)[0].fix == "--dataset PATH"
    assert choice("dataset", "alpca", known)[0].fix == "did you mean --dataset alpaca?"


def test_a_number_out_of_range_is_reported_with_the_range() -> None:
    assert out_of_range("eval_steps", 0, AT_LEAST_0) == []
    (problem,) = out_of_range("lr", 0.0, ABOVE_0)
    parts = (problem.what, problem.why, problem.fix)
    assert parts == ("--lr is 0.0", "it must be above 0", "give it above 0")
