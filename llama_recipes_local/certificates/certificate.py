"""Compares an export with its model, refuses one that differs too much, and records the rest.

It looks for what conversions lose silently: rows of queries and keys in another order, a layer's
scale, merges, tokens that end an answer, rotary settings. It also measures what quantisation costs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.certificates.check_names import CHECKS
from llama_recipes_local.certificates.comparing_tokenizers import (
    compared_texts,
    other_settings,
    other_tokens,
)
from llama_recipes_local.certificates.greedy_answers import Answered, greedy_answers, too_large
from llama_recipes_local.certificates.held_out import HeldOut, chosen_rows
from llama_recipes_local.certificates.intervals import Interval, ratio_interval
from llama_recipes_local.certificates.layer_by_layer import RowDifference, Weights, differences
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.read_back import ReadBack, Tolerances
from llama_recipes_local.storage.hashing import contents_hash
from llama_recipes_local.storage.publishing import write_json

FILE = "certificate.json"
_TITLES = dict(zip(CHECKS, ("tokens", "end tokens", "settings", "weights", "outputs"), strict=True))
_BY_TYPE = ("weights", "outputs")
"""What another type of the same format may hold."""
_MINUTES = 10**12
"""Weights times tokens from which the comparison takes minutes on a CPU, which is said."""
LOST_STOPS = 0.1
"""By how much the share of answers that end where they should may fall."""


@dataclass(kw_only=True)
class Outputs:
    """How the logits of model and export differ on held-out rows, and their answers to prompts.

    Attributes:
        source: where the rows come from.
        rows: number of rows.
        tokens: label tokens in them.
        largest_logit_difference: the largest difference of a logit, at any label token.
        kl_divergence: of the next token, in nats a token, with its interval.
        perplexity: the original's and the export's.
        perplexity_change: relative rise of the perplexity, with its interval.
        same_likeliest_token: share of the tokens at which both find the same token likeliest.
        stop_share: share of the rows' answers that the original, and the export, would end in the
            same place; empty if no answer ends.
        lost_stops: by how much that share falls, with its interval; None if no answer ends.
        answers: answers of both to prompts.
        no_answers: why there are no answers.
    """

    source: str
    rows: int
    tokens: int
    largest_logit_difference: float
    kl_divergence: Interval
    perplexity: tuple[float, float]
    perplexity_change: Interval
    same_likeliest_token: float
    stop_share: tuple[float, ...]
    lost_stops: Interval | None
    answers: list[Answered] = field(default_factory=list)
    no_answers: str = ""

    @classmethod
    def of(cls, found: list[RowDifference], source: str) -> "Outputs":
        """Summarise the differences of rows."""
        counts = [row.tokens for row in found]
        first, second = ([row.losses[side] for row in found] for side in (0, 1))
        total = sum(counts)
        changes = [b - a for a, b in zip(first, second, strict=True)]
        stops = [row.stops for row in found if row.stops is not None]
        lost = [float(before) - after for before, after in stops]
        return cls(
            source=source,
            rows=len(found),
            tokens=total,
            largest_logit_difference=max(row.largest for row in found),
            kl_divergence=ratio_interval([row.divergence for row in found], counts, lambda x: x),
            perplexity=(float(np.exp(sum(first) / total)), float(np.exp(sum(second) / total))),
            perplexity_change=ratio_interval(changes, counts, np.expm1),
            same_likeliest_token=sum(row.same for row in found) / total,
            stop_share=tuple(float(each) for each in np.mean(stops, 0)) if stops else (),
            lost_stops=ratio_interval(lost, [1] * len(lost), lambda x: x) if lost else None,
        )

    def beyond(self, tolerances: Tolerances) -> list[str]:
        """Return what exceeds the tolerances of the format with its whole interval."""
        found = []
        if not self.kl_divergence.low <= tolerances.divergence:
            said = f"KL divergence {self.kl_divergence:.3f} nats a token"
            found.append(f"{said}, above {tolerances.divergence}")
        if not self.perplexity_change.low <= tolerances.perplexity:
            said = f"perplexity {self.perplexity_change:+.1%}"
            found.append(f"{said}, above {tolerances.perplexity:+.0%}")
        if self.lost_stops is not None and not self.lost_stops.low <= LOST_STOPS:
            said = " and ".join(f"{share:.0%}" for share in self.stop_share)
            found.append(f"{said} of answers end where they should, before and after")
        return found


@dataclass(kw_only=True)
class Certificate:
    """The result of a comparison.

    Attributes:
        files: name, sha256 and size of each file with weights.
        bytes: total size of these files.
        texts: number of tokenised texts, including one for each single token.
        other_tokens: texts with other token ids in the export.
        other_prompt: how the program that runs the files tokenises the model's prompts otherwise.
        ends: the tokens that end an answer.
        lost_ends: end tokens that the export does not have.
        added_ends: end tokens that only the export has.
        other_settings: settings with other values in the export.
        errors: the largest error of a tensor, by how it is stored.
        wrong_weights: tensors whose error exceeds the limit.
        outputs: differences of the outputs; None until they are computed.
        wrong_outputs: differences that exceed the format's tolerances.
        tolerances: of the format.
        accepted: the checks that the user accepted.
        refused: the checks with findings that the user did not accept.
    """

    files: dict[str, str]
    bytes: int
    tolerances: Tolerances
    texts: int = 0
    other_tokens: list[str] = field(default_factory=list)
    other_prompt: str = ""
    ends: list[str] = field(default_factory=list)
    lost_ends: list[str] = field(default_factory=list)
    added_ends: list[str] = field(default_factory=list)
    other_settings: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    wrong_weights: list[str] = field(default_factory=list)
    outputs: Outputs | None = None
    wrong_outputs: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def findings(self) -> dict[str, list[str]]:
        """Return the findings, by check."""
        found = (
            *(self.other_tokens, self.lost_ends + self.added_ends, self.other_settings),
            *(self.wrong_weights, self.wrong_outputs),
        )
        return dict(zip(CHECKS, found, strict=True))

    def problems(self) -> list[Problem]:
        """Return the findings that the user has not accepted."""
        files = ", ".join(self.files)
        return [
            _problem(files, check, found)
            for check, found in self.findings().items()
            if found and check not in self.accepted
        ]

    def record(self) -> dict[str, object]:
        """Return it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        errors = ", ".join(f"{kind} {error:.2%}" for kind, error in self.errors.items())
        same = self.texts - len(self.other_tokens)
        lines = [f"--> read back: {same} of {self.texts} texts and tokens the same, "]
        lines[0] += f"{len(self.ends) - len(self.lost_ends)} of {len(self.ends)} end tokens, "
        lines[0] += f"largest errors of weights {errors}"
        if self.other_prompt:
            lines.append(f"    {self.other_prompt}")
        if self.outputs is not None:
            lines.append(_said(self.outputs))
        named = (check for check, found in self.findings().items() if found)
        return "\n".join([*lines, *(f"    accepted: {check}" for check in named)])


def _said(found: Outputs) -> str:
    before, after = found.perplexity
    lines = [
        f"    {found.rows} rows ({found.source}): perplexity {before:.3f}, then {after:.3f}, "
        f"{found.perplexity_change:+.2%}",
        f"    KL divergence {found.kl_divergence:.5f}, largest logit difference "
        f"{found.largest_logit_difference:.3f}, {found.same_likeliest_token:.1%} of the likeliest "
        "tokens the same",
    ]
    if found.stop_share:
        first, second = found.stop_share
        lines.append(f"    {first:.0%} of answers end where they should, then {second:.0%}")
    if found.no_answers:
        lines.append(f"    no answers side by side: {found.no_answers}")
    else:
        same = sum(each.original == each.exported for each in found.answers)
        lines.append(f"    {same} of {len(found.answers)} greedy answers the same")
    return "\n".join(lines)


def _problem(files: str, check: str, found: Sequence[str]) -> Problem:
    other = "--type or --format" if check in _BY_TYPE else "--format"
    return Problem(
        f"{files} has other {_TITLES[check]} than its model: {len(found)}",
        f"read back, it differs in {', '.join(map(repr, found[:3]))}",
        f"take another {other}, or accept it: --accept {check}",
    )


def check_tokenizer(
    ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, accepted: Collection[str]
) -> list[Problem]:
    """Return a problem if an export has other tokens than its model; needs no weights.

    Args:
        ours: the model's tokenizer.
        theirs: the export's, read back.
        accepted: the checks that the user accepted.
    """
    if "tokens" in accepted or not (found := other_tokens(ours, theirs)):
        return []
    return [_problem("the export", "tokens", found)]


def certify(
    folder: Path, read: ReadBack, held_out: HeldOut, accepted: Collection[str]
) -> Certificate:
    """Compare an export with its original model, and write the certificate into its folder.

    Tokens and settings are compared first; if these are refused, nothing is computed.
    """
    made = Certificate(
        files={path.name: contents_hash(path) for path in read.files},
        bytes=sum(path.stat().st_size for path in read.files),
        tolerances=read.tolerances,
        other_prompt=read.other_prompt,
        accepted=sorted(accepted),
    )
    _compare_tokens(made, read)
    made.other_settings += _other_settings(read.original.settings, read.exported.settings)
    if not made.problems():
        _compare_weights(made, read, held_out)
    found = made.findings()
    made.refused = [check for check in found if found[check] and check not in accepted]
    write_json(folder / FILE, made.record())
    return made


def _compare_tokens(made: Certificate, read: ReadBack) -> None:
    ours, theirs = read.original.tokenizer, read.exported.tokenizer
    made.texts = len(compared_texts(ours)) + len(ours.get_vocab())
    made.other_tokens = other_tokens(ours, theirs)
    made.other_settings = other_settings(ours, theirs)
    before, after = set(read.original.ends), set(read.exported.ends)
    made.ends = _named(ours, before)
    made.lost_ends = _named(ours, before - after)
    made.added_ends = _named(ours, after - before)


def _named(tokenizer: PreTrainedTokenizerBase, ids: Collection[int]) -> list[str]:
    return [str(tokenizer.convert_ids_to_tokens(each)) for each in sorted(ids)]


def _other_settings(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    found = []
    for name in {**ours, **theirs}:
        value, other = ours.get(name), theirs.get(name)
        if isinstance(value, list) and isinstance(other, list):
            places = [
                place
                for place, (a, b) in enumerate(zip_longest(value, other))
                if not _same_setting(a, b)
            ]
            if places:
                a, b = (each[places[0] : places[0] + 1] for each in (value, other))
                found.append(f"{name} {b!r:.80} for {a!r:.80} at {places[0]}, {len(places)} in all")
        elif not _same_setting(value, other):
            found.append(f"{name} {other!r:.80} for {value!r:.80}")
    return found


def _same_setting(value: object, other: object) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return abs(value - other) <= 1e-6 * abs(value)  # 32 bits in a file
    return value == other


def _compare_weights(made: Certificate, read: ReadBack, held_out: HeldOut) -> None:
    weights = Weights(read)
    rows = chosen_rows(held_out.rows, read.numbers)
    tokens = sum(len(row.ids) for row in rows)
    if read.numbers * tokens > _MINUTES:
        print(f"--> comparing it with its model, {tokens:,} tokens through both: minutes on a CPU")
    found = differences(weights, rows)
    made.errors, made.wrong_weights = weights.errors, weights.wrong
    made.outputs = Outputs.of(found, held_out.source)
    made.wrong_outputs = made.outputs.beyond(read.tolerances)
    made.outputs.no_answers = too_large(read.numbers)
    if not made.problems() and not made.outputs.no_answers:
        made.outputs.answers = greedy_answers(read, held_out)
