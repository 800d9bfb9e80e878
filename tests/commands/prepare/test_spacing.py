"""The eighteen corrections, their order, and which of them ``clean`` leaves out."""

import pytest

from llama_recipes_local.commands.prepare.grammar.spacing import CORRECTIONS, correct, corrections

# as the recipe of the published files has them
LISTED = [
    (" .", "."),
    (" ,", ","),
    (" '", "'"),
    (" ?", "?"),
    (" !", "!"),
    (" :", ":"),
    (" ;", ";"),
    (" n't", "n't"),
    (" v", "v"),
    ("2 0 0 6", "2006"),
    ("5 5", "55"),
    ("4 0 0", "400"),
    ("1 7-5 0", "1750"),
    ("2 0 %", "20%"),
    ("5 0", "50"),
    ("1 2", "12"),
    ("1 0", "10"),
    ('" ballast water', '"ballast water'),
]
LEFT_OUT = [" v", "2 0 0 6", "5 5", "4 0 0", "1 7-5 0", "2 0 %", "5 0", "1 2", "1 0"]


def test_the_corrections_are_those_listed_in_order() -> None:
    assert list(CORRECTIONS) == LISTED


@pytest.mark.parametrize(("wrong", "right"), LISTED)
def test_each_correction_is_applied_wherever_it_matches(wrong: str, right: str) -> None:
    assert correct(f"a{wrong}b{wrong}") == f"a{right}b{right}"


@pytest.mark.parametrize(("wrong", "right"), LISTED)
def test_clean_leaves_out_those_with_digits_and_the_one_with_v(wrong: str, right: str) -> None:
    text = f"a{wrong}b"
    assert correct(text, "clean") == (text if wrong in LEFT_OUT else f"a{right}b")


def test_corrections_are_applied_in_order() -> None:
    assert correct("1 2 0 0 6") == "12006"  # not 12 0 0 6, were "1 2" first
    assert correct("1 7-5 0") == "1750"  # not 1 7-50, were "5 0" first
    assert correct("5 5 0") == "550"


def test_the_result_of_a_correction_is_not_corrected_again() -> None:
    assert correct("the end  .") == "the end ."
    assert correct("a ' . b") == "a'. b"


def test_a_sentence_of_each_kind() -> None:
    tokenised = "He did n't say : \" It 's very late , is n't it ? \" ."
    assert correct(tokenised) == "He didn't say: \" It'svery late, isn't it? \"."
    assert correct(tokenised, "clean") == "He didn't say: \" It's very late, isn't it? \"."


def test_an_unknown_mode_raises() -> None:
    with pytest.raises(KeyError):
        corrections("tidy")
