"""The spacing corrections that the published grammar files were made with; ``build`` applies them.

JFLEG and C4_200M are tokenised: with a space before a full stop and between a number's digits.
"""

PUBLISHED = "published"
CLEAN = "clean"
MODES = (PUBLISHED, CLEAN)

Correction = tuple[str, str]

# The order matters: " '" comes before " n't", "2 0 0 6" before "5 0" and "1 0".
CORRECTIONS: tuple[Correction, ...] = (
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
)


def corrections(mode: str = PUBLISHED) -> tuple[Correction, ...]:
    """Return the corrections of a mode, in order.

    ``published`` has all eighteen. ``clean`` leaves out nine: the eight with digits, each written
    for the number of a single row, which join any two numbers that match ("from 1 2 people"
    becomes "from 12 people"), and ``" v"``, which joins a word that starts with v to the previous
    one ("it is very" becomes "it isvery").

    Raises:
        KeyError: if the mode is unknown.
    """
    clean = tuple(pair for pair in CORRECTIONS if not _does_harm(pair[0]))
    return {PUBLISHED: CORRECTIONS, CLEAN: clean}[mode]


def correct(text: str, mode: str = PUBLISHED) -> str:
    """Return the text with a mode's corrections applied in order."""
    for wrong, right in _BY_MODE[mode]:
        text = text.replace(wrong, right)
    return text


def _does_harm(wrong: str) -> bool:
    return wrong == " v" or any(char.isdigit() for char in wrong)


_BY_MODE = {mode: corrections(mode) for mode in MODES}
