"""Encodings other than UTF-8: read as UTF-8 where they are named, and guessed for messages.

``text_lines`` asks both. A guess is never used to read: it could be wrong without a sign.
"""
# letters that only look like others are what this is about
# ruff: noqa: RUF001

import codecs
import io
import re
from collections.abc import Callable
from typing import IO

from llama_recipes_local.errors import refusal

UTF_8 = "utf-8"
SAMPLE = 1 << 16
_BLOCK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# of the bytes of text in Latin letters every second is 0 in UTF-16; other texts have none
_ZEROS = 0.3
_TYPOGRAPHY = "‘’“”„–—…€«»°§\xa0¿¡·"


def is_known(name: str) -> bool:
    """Return whether Python has a text encoding of this name."""
    try:
        return codecs.lookup(name)._is_text_encoding
    except LookupError:
        return False


def wide_encoding(beginning: bytes) -> str:
    """Return UTF-16 or UTF-32 if a file's first bytes show it; else an empty string."""
    for mark, name in _MARKS:
        if beginning.startswith(mark):
            return name
    zeros = [beginning[parity::2].count(0) for parity in (0, 1)]
    if len(beginning) < 4 or max(zeros) < _ZEROS * len(beginning):
        return ""
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def guess(sample: bytes) -> str:
    """Return the encoding that a text that is not UTF-8 is probably in; empty if none fits.

    Each candidate must decode the sample, and nearly all of what is not ASCII must be the letters
    that texts in this encoding have.
    """
    wide = wide_encoding(sample)
    if wide:
        return wide
    for name, expected, share in _CANDIDATES:
        letters = _beyond_ascii(sample, name)
        if letters.strip() and expected(letters) >= share * len(letters.replace(" ", "")):
            return name
    return ""


def is_other(sample: bytes, encoding: str) -> str:
    """Return what a file's beginning is in if it cannot be the encoding that was named."""
    if codecs.lookup(encoding).name == UTF_8:
        return ""
    is_wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    try:
        text = codecs.getincrementaldecoder(UTF_8)().decode(sample)
    except UnicodeError:
        return ""
    plain = not wide_encoding(sample)
    return UTF_8 if plain and (is_wide or not text.isascii()) else ""


def as_utf_8(file: IO[bytes], encoding: str, what: object) -> IO[bytes]:
    """Return a stream of a file's text in UTF-8, which reads as much as it is asked for.

    Args:
        file: the bytes.
        encoding: what they are in.
        what: names the file in messages.
    """
    return io.BufferedReader(_Transcoded(file, encoding, what))


class _Transcoded(io.RawIOBase):
    def __init__(self, file: IO[bytes], encoding: str, what: object) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._what = what
        self._ready = b""
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            block = self._file.read(_BLOCK)
            self._ready = self._decoded(block).encode()
            if not block:
                break
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _decoded(self, block: bytes) -> str:
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeError as error:
            place = self._read - held + getattr(error, "start", 0)
            raise refusal(
                f"byte {place} of {self._what} is not {self._encoding}",
                str(error),
                "name the encoding that the file is in",
            ) from error
        self._read += len(block)
        return text


def _beyond_ascii(sample: bytes, encoding: str) -> str:
    """Return the letters of a sample that are not ASCII; none if it is in another encoding."""
    try:
        # the sample may end within a character
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeError:
        return ""
    return re.sub(r"[\x00-\x7f，。、！？：；]+", " ", text)


def _number_of(expected: Callable[[str], bool]) -> Callable[[str], int]:
    return lambda letters: sum(map(expected, letters))


def _is_hangul(letter: str) -> bool:
    # the further syllables of cp949 are rare, and what other encodings' bytes look like
    return "\uac00" <= letter <= "\ud7a3" and _first_byte(letter, "euc_kr") > 0


def _first_byte(letter: str, encoding: str) -> int:
    """Return the first byte of a letter; 0 if the encoding does not have it."""
    try:
        code = letter.encode(encoding)
    except UnicodeError:
        return 0
    return code[0] if len(code) == 2 else 0  # not a syllable that is spelled out in jamo


def _is_kana(letter: str) -> bool:
    return "\u3040" <= letter <= "\u30ff"


def _is_common_hanzi(letter: str) -> bool:
    """Whether a character is one of GB 2312's common ones, or its punctuation."""
    first = _first_byte(letter, "gb2312")
    return 0xB0 <= first <= 0xD7 or 0xA1 <= first <= 0xA3


def _is_common_in_big5(letter: str) -> bool:
    return 0xA1 <= _first_byte(letter, "big5") <= 0xC6


def _lower_cyrillic(letters: str) -> int:
    """Count lower-case Cyrillic letters in words of them; a French accent stands alone."""
    return sum(map(len, re.findall("[а-ё]{2,}", letters)))


def _is_western(letter: str) -> bool:
    return letter in _TYPOGRAPHY or (letter.isalpha() and letter not in "ªºƒˆŸÞþÐð")


# In this order: texts in the first are valid in those after them, too.
_CANDIDATES: tuple[tuple[str, Callable[[str], int], float], ...] = (
    ("cp949", _number_of(_is_hangul), 0.9),
    ("cp932", _number_of(_is_kana), 0.3),
    ("euc_jp", _number_of(_is_kana), 0.3),
    ("gb18030", _number_of(_is_common_hanzi), 0.9),
    ("big5", _number_of(_is_common_in_big5), 0.9),
    ("cp1251", _lower_cyrillic, 0.6),
    ("koi8_r", _lower_cyrillic, 0.6),
    ("cp1252", _number_of(_is_western), 0.9),
    ("cp1250", _number_of(_is_western), 0.8),
)
