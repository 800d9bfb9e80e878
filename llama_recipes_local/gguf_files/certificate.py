"""Reads a GGUF file back that was just written, and compares it with the model that it was made of.

What other conversions lose unseen is looked for: rows of queries and keys in another order, a
layer's scale, tokens, tokens that end an answer, rotary settings. Each has a threshold; past one
the export is refused, unless the user accepts that by its name.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.gguf_files.folder_of_file import GgufModel
from llama_recipes_local.gguf_files.gguf_choices import CHECKS
from llama_recipes_local.gguf_files.shape import Shape
from llama_recipes_local.gguf_files.tokenizer_folder import read_tokenizer
from llama_recipes_local.storage.hashing import contents_hash
from llama_recipes_local.storage.publishing import write_json

FILE = "certificate.json"
SAMPLED_ROWS = 64
"""Rows of each matrix that are compared."""

LARGEST_ERRORS = {
    "F32": 0.0,
    "F16": 0.002,
    "BF16": 0.004,
    "Q8_0": 0.02,
    "Q6_K": 0.05,
    "Q5_K": 0.1,
    "Q5_1": 0.1,
    "Q5_0": 0.1,
    "Q4_K": 0.2,
    "Q4_1": 0.2,
    "Q4_0": 0.2,
}
"""Root of the mean squared error of a matrix over that of its weights, at most, by type.

About twice what normally distributed weights have.
"""

TEXTS = (
    "She go to school yesterday, didn't she? I'd say they'll see.",
    "e-mail: a.b@c.de, http://x.y/z?q=1&r=%20; naïve café, “quotes” — dashes…",
    "今天天气很好，我们去公园吧。中文 English 混排 12345 个。龘靐",  # noqa: RUF001
    "春の日、학교, Привет, שלום, ﷺ",
    "def f(x):\n\treturn x ** 2 + 0x1F  # squared\r\n",
    'for (int i = 0; i < 100; ++i) {\n    printf("%d\\n", a[i]);\n}',
    "0 7 42 2026 3.14159 1,000,000 1e-5 ١٢٣ Ⅷ ⅔",
    "a   b\n\n\n\tc \u00a0\u3000\u200bd  ",
    "\N{FACE WITH TEARS OF JOY}\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} ok",
    "CAN'T I'M ...!!!??? --==++ a_b_c \x07",
)


def sampled_rows(rows: int) -> list[int]:
    """Return the rows of a matrix that are compared."""
    return list(range(0, rows, max(1, rows // SAMPLED_ROWS)))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a file was made of.

    Attributes:
        shape: the model's sizes and constants.
        tokenizer: its tokenizer.
        ends: ids of the tokens that end an answer.
        samples: ``sampled_rows`` of each matrix, and all of each other tensor, in float32.
    """

    shape: Shape
    tokenizer: PreTrainedTokenizerBase
    ends: Collection[int]
    samples: Mapping[str, torch.Tensor]


@dataclass(kw_only=True)
class Certificate:
    """What came of comparing.

    Attributes:
        file: name of the file.
        sha256: of it.
        bytes: its size.
        texts: how many texts and special tokens were tokenised.
        other_tokens: those with other tokens.
        ends: the tokens that end an answer.
        lost_ends: those of them that the file does not say.
        other_settings: settings with other values.
        errors: the largest error of a matrix, by type, see ``LARGEST_ERRORS``.
        wrong_weights: the tensors with a larger error than their type allows.
        accepted: the checks that the user accepted.
    """

    file: str
    sha256: str
    bytes: int
    texts: int = 0
    other_tokens: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    lost_ends: list[str] = field(default_factory=list)
    other_settings: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    wrong_weights: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def findings(self) -> dict[str, list[str]]:
        """Return what was found, by check."""
        found = (self.other_tokens, self.lost_ends, self.other_settings, self.wrong_weights)
        return dict(zip(CHECKS, found, strict=True))

    def problems(self) -> list[Problem]:
        """Return the findings that the user has not accepted."""
        whats = ("other tokens", "lost end tokens", "other settings", "other weights")
        return [
            Problem(
                f"{self.file} has {what} than its model: {len(found)}",
                f"read back, it differs in {', '.join(map(repr, found[:3]))}",
                f"take another --type or --format, or accept it: --accept {check}",
            )
            for what, (check, found) in zip(whats, self.findings().items(), strict=True)
            if found and check not in self.accepted
        ]

    def __str__(self) -> str:
        errors = ", ".join(f"{kind} {error:.2%}" for kind, error in self.errors.items())
        same = self.texts - len(self.other_tokens)
        lines = [f"--> read back: {same} of {self.texts} texts with the same tokens, "]
        lines[0] += f"{len(self.ends) - len(self.lost_ends)} of {len(self.ends)} end tokens, "
        lines[0] += f"largest errors of weights {errors}"
        named = (check for check, found in self.findings().items() if found)
        return "\n".join([*lines, *(f"    accepted: {check}" for check in named)])


def certify(path: Path, origin: Origin, accepted: Collection[str]) -> Certificate:
    """Compare a file with what it was made of, and write the certificate beside it.

    Raises:
        UsageError: if it differs by more than it may, with each check that failed.
    """
    model = GgufModel(path)
    made = Certificate(
        file=path.name,
        sha256=contents_hash(path),
        bytes=path.stat().st_size,
        accepted=sorted(accepted),
    )
    _compare_tokens(made, model, origin)
    _compare_settings(made, model.shape, origin.shape)
    _compare_weights(made, model, origin)
    refuse(made.problems())
    write_json(path.parent / FILE, asdict(made))
    return made


def _compare_tokens(made: Certificate, model: GgufModel, origin: Origin) -> None:
    ours, theirs = origin.tokenizer, read_tokenizer(model.vocabulary, model.shape.positions)
    texts = [*TEXTS, *ours.get_added_vocab()]
    made.texts = len(texts)
    made.other_tokens = [
        text for text in texts if ours(text)["input_ids"] != theirs(text)["input_ids"]
    ]
    known = model.vocabulary
    ends = {known.end, *known.other_ends}
    made.ends = [str(ours.convert_ids_to_tokens(each)) for each in origin.ends]
    made.lost_ends = [
        text for text, each in zip(made.ends, origin.ends, strict=True) if each not in ends
    ]


def _compare_settings(made: Certificate, found: Shape, expected: Shape) -> None:
    ours, theirs = asdict(expected), asdict(found)
    for name, value in ours.items():
        same = value == theirs[name]
        if isinstance(value, float):
            same = abs(value - theirs[name]) <= 1e-6 * abs(value)  # 32 bits in the file
        if not same:
            made.other_settings.append(f"{name} {theirs[name]!r} for {value!r}")


def _compare_weights(made: Certificate, model: GgufModel, origin: Origin) -> None:
    for name, expected in origin.samples.items():
        kind = model.weights.kind(name)
        found = model.weights.rows(name, sampled_rows(model.weights.shapes[name][0]))
        error = _relative_error(found, expected)
        made.errors[kind] = max(made.errors.get(kind, 0.0), error)
        if not error <= LARGEST_ERRORS[kind]:
            made.wrong_weights.append(f"{name} {error:.1%}")


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    size = float(expected.double().square().mean().sqrt())
    error = float((found.double() - expected.double()).square().mean().sqrt())
    return error / size if size else error
