from llama_recipes_local.commands.inspect.row_display import (
    COLOUR,
    PLAIN,
    STRIP_COLUMNS,
    packed_layout,
    row_text,
)

ROW = {"input_ids": [10, 11, 12, 13], "labels": [-100, -100, 12, 13]}


class Words:
    """Decodes an id as a letter."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        assert not skip_special_tokens
        return "".join(chr(ord("a") + token - 10) for token in ids)


def test_labels_are_marked():
    assert row_text(ROW, Words(), PLAIN) == "ab[[cd]]"


def test_labels_have_their_own_colour():
    text = row_text(ROW, Words(), COLOUR)
    assert text == "\x1b[2mab\x1b[0m\x1b[1;32mcd\x1b[0m"


def test_a_packed_row_is_drawn_to_scale():
    row = {
        "input_ids": list(range(6)),
        "labels": [-100, -100, 2, -100, 4, 5],
        "position_ids": [0, 1, 2, 0, 1, 2],
    }
    assert packed_layout(row, 8, PLAIN).splitlines() == [
        "2 documents, 6 of 8 positions, 3 labels",
        "|##[[#]]=[[==]]  |",
        "  document   1: positions      0 to      2, 1 labels",
        "  document   2: positions      3 to      5, 2 labels",
    ]


def test_only_the_first_documents_are_listed():
    row = {"input_ids": [1] * 30, "labels": [-100] * 30, "position_ids": [0, 1] * 15}
    assert packed_layout(row, 30, PLAIN).endswith("  and 3 more")


def test_a_long_row_is_drawn_in_steps():
    row = {
        "input_ids": [1] * 192,
        "labels": [-100] * 96 + [1] * 96,
        "position_ids": [*range(96), 0, 0, 0, 0, *range(92)],
    }
    strip = packed_layout(row, 2 * STRIP_COLUMNS, PLAIN).splitlines()[1]
    # a step is two positions, so every second of the one-token documents is visible
    assert strip == "|" + "#" * 48 + "[[==" + "=" * 46 + "]]|"
