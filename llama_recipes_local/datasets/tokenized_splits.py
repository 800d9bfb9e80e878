"""Converts a split's files to tokens: formatted, tokenised, truncated to the context, cached."""

import copy
import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tokenizers
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import __version__, parallel
from llama_recipes_local.data import audit
from llama_recipes_local.data.audit import Counts, SplitAudit, audit_split
from llama_recipes_local.data.cache import Built, cache_folder, cached
from llama_recipes_local.data.streaming import SampleStream
from llama_recipes_local.data.token_rows import IGNORE_INDEX, Chunk, Sample, TokenRows, Tokens
from llama_recipes_local.data.truncation import truncate
from llama_recipes_local.data.worker_pool import tokenize
from llama_recipes_local.datasets.base import Formatter, Split
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Example
from llama_recipes_local.datasets.flaws import find_flaws
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.errors import Problem, RecordError, UsageError, refusal
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.storage.disk import write_failure
from llama_recipes_local.storage.hashing import FileHashes
from llama_recipes_local.storage.names import shortened

# Incremented when the same files give other tokens than before.
FORMAT = 10
HASHES = "hashes.json"
RECORDS_AT_A_TIME = 256  # of a stream
UNKNOWN = "text that the tokenizer has no tokens for, written as its unknown token"
MOST_REPORTED = 100_000
"""How many records of a stream are read again for a report of what is wrong with them."""

Document = tuple[Tokens, Tokens]
"""Ids and labels, as many of each."""


@dataclass(frozen=True)
class Loaded:
    """A split's tokens.

    Attributes:
        rows: the rows.
        audit: what was found while tokenising.
        how: "from cache", "made", or "made again" with the reason.
        fingerprint: a hash of what the rows were made from: the files and how they are read, or the
            samples themselves.
    """

    rows: TokenRows
    audit: SplitAudit
    how: str
    fingerprint: str


def load_split(
    split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None = None, cache: str = ""
) -> Loaded:
    """Return a split's tokens, from the cache if they are there.

    Args:
        split: what to read and how to format it.
        tokenizer: the model's tokenizer.
        limit: the longest row, in tokens; None means that rows stay as long as they are.
        cache: the cache's folder; see ``cache_folder``.

    Raises:
        UsageError: if a record cannot be used, or the cache cannot be written.
    """
    folder = cache_folder(cache)
    encoder = _Encoder(split.formatter, tokenizer, limit)
    entry = _entry(split, encoder, folder)

    def build() -> Built:
        title = f"tokenising {split.files[0].name}"
        return tokenize(split.records(), encoder, title, show=parallel.is_rank_zero())

    try:
        return Loaded(*cached(entry, build), fingerprint=_fingerprint(split, folder))
    except OSError as error:
        raise UsageError([_unwritable(folder, error)]) from error
    except UsageError as error:
        raise UsageError(find_flaws(split, tokenizer) or error.problems) from error


def audit_records(
    split: Split, tokenizer: PreTrainedTokenizerBase, limit: int, records: Sequence[Record]
) -> SplitAudit:
    """Return the audit of the rows that a run makes of some of a split's records.

    Raises:
        UsageError: if one cannot be used.
    """
    chunk, counts = _Encoder(split.formatter, tokenizer, limit)(records)
    return audit_split(TokenRows([chunk.batch()]), counts)


def is_tokenized(
    split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None = None, cache: str = ""
) -> bool:
    """Return whether a split's tokens are in the cache; see ``load_split``."""
    folder = cache_folder(cache)
    encoder = _Encoder(split.formatter, tokenizer, limit)
    return folder.is_dir() and _entry(split, encoder, folder).exists()


def _entry(split: Split, encoder: "_Encoder", folder: Path) -> Path:
    return folder / f"{shortened(split.files[0].stem)}-{_key(split, encoder, folder)}"


@dataclass(frozen=True)
class _Encoder:
    """Makes a chunk of tokens from some records."""

    formatter: Formatter
    tokenizer: PreTrainedTokenizerBase
    limit: int | None

    def __call__(self, records: Sequence[Record]) -> tuple[Chunk, Counts]:
        rows, counts = self.rows(records)
        return Chunk.of([ids for ids, _ in rows], [labels for _, labels in rows]), counts

    def rows(self, records: Sequence[Record]) -> tuple[list[Document], Counts]:
        """Return the rows made from records, and what was found in them."""
        examples = [self.formatter(record, self.tokenizer) for record in records]
        kept = [example for example in examples if example is not None]
        bad = self._bad(records, examples)
        counts = Counts(records=len(records), blank=len(records) - len(kept) - bad, bad=bad)
        notes = Counter(note for example in kept for note in dict.fromkeys(example.notes))
        samples = encode(self.tokenizer, kept, attention_mask=False)
        if unknown := self._unknown(samples):
            notes[UNKNOWN] = unknown
        counts.notes = dict(notes)
        rows = [row for sample in samples for row in _rows_of(sample, self.limit, counts)]
        return rows, counts

    def _unknown(self, samples: Sequence[Mapping[str, list[int]]]) -> int:
        """Count the samples with a token for text that is not in the vocabulary."""
        token = self.tokenizer.unk_token_id
        if token is None or token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            return 0
        return sum(token in sample["input_ids"] for sample in samples)

    def _bad(self, records: Sequence[Record], examples: Sequence[Example | None]) -> int:
        """Count the records that were skipped because they are unusable."""
        formatter = self.formatter
        if not isinstance(formatter, RowFormatter) or not formatter.skip_bad_rows:
            return 0
        skipped = (record for record, made in zip(records, examples, strict=True) if made is None)
        return sum(bool(formatter.problems(record, self.tokenizer)) for record in skipped)


def load_samples(samples: Iterable[Sample], limit: int | None = None) -> Loaded:
    """Hold samples that are tokenised already, truncated to the context.

    Args:
        samples: each with ``input_ids`` and ``labels``.
        limit: the longest row, in tokens; None means that rows stay as long as they are.

    Raises:
        UsageError: if one is not such a sample.
    """
    counts = Counts()

    def truncated() -> Iterator[Sample]:
        for sample in samples:
            counts.records += 1
            _check_sample(sample, counts.records)
            for ids, labels in _rows_of(sample, limit, counts):
                yield {"input_ids": ids, "labels": labels}

    rows = TokenRows.from_samples(truncated())
    return Loaded(rows, audit_split(rows, counts), "made", _content_hash(rows))


def stream_split(
    split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None = None
) -> SampleStream:
    """Return a split that is read and tokenised during training, and not cached.

    Args:
        split: what to read and how to format it.
        tokenizer: the model's tokenizer.
        limit: the longest row, in tokens; None means that rows stay as long as they are.
    """
    return SampleStream(_Pass(split, _Encoder(split.formatter, tokenizer, limit)))


@dataclass(frozen=True)
class _Pass:
    """Reads a split from its beginning; all passes are the same, because the stream shuffles.

    The first skipped record is printed with the reason, and the number at the end of the first
    pass.

    Raises:
        RecordError: at the first record that cannot be used.
    """

    split: Split
    encoder: _Encoder

    def __call__(self, number: int) -> Iterator[Sample]:
        counts = Counts()
        try:
            remaining = iter(self.split.records())
            while records := list(islice(remaining, RECORDS_AT_A_TIME)):
                rows, found = self.encoder.rows(records)
                if number == 0 and found.bad and not counts.bad:
                    self._print_first_bad(records)
                counts.add(found)
                for ids, labels in rows:
                    yield {"input_ids": ids, "labels": labels}
            if number == 0 and parallel.is_rank_zero():
                print(f"--> stream, the first pass: {audit.describe(counts)}", flush=True)
        except UsageError as error:
            flaws = find_flaws(self.split, self.encoder.tokenizer, MOST_REPORTED)
            problems = "\n".join(map(str, flaws or error.problems))
            raise RecordError(f"stopped at an invalid record:\n{problems}") from error

    def _print_first_bad(self, records: Sequence[Record]) -> None:
        """Print why the first of some skipped records is skipped."""
        formatter = self.split.formatter
        assert isinstance(formatter, RowFormatter)
        for record in records:
            problems = formatter.problems(record, self.encoder.tokenizer)
            if problems and parallel.is_rank_zero():
                print(f"--> stream, skipped: {problems[0].what}: {problems[0].why}", flush=True)
            if problems:
                return


def _check_sample(sample: object, number: int) -> None:
    """Refuse what a user's function returned in place of a sample.

    Raises:
        UsageError: if it is not a sample.
    """
    columns = ("input_ids", "labels")
    if not isinstance(sample, Mapping) or not set(columns) <= set(sample):
        why = f"it is {sample!r:.80}"
    elif len({len(sample[column]) for column in columns}) > 1:
        why = ", ".join(f"{column} has {len(sample[column])} tokens" for column in columns)
    else:
        return
    what = f"sample {number} of the data set cannot be trained on"
    raise refusal(what, why, f"give each sample {' and '.join(columns)} of one length")


def _rows_of(sample: Sample, limit: int | None, counts: Counts) -> list[Document]:
    """Return the rows made from a sample, and count it."""
    ids, labels = sample["input_ids"], sample["labels"]
    if all(label == IGNORE_INDEX for label in labels[1:]):
        counts.without_label += 1
        return []
    if limit is None or len(ids) <= limit:
        return [(ids, labels)]
    documents = truncate(ids, labels, limit)
    counts.truncated += len(documents) == 1
    counts.divided += len(documents) > 1
    return documents


def _fingerprint(split: Split, folder: Path) -> str:
    """Return a hash of a split's files and of how examples are made of them."""
    files = FileHashes(folder / HASHES).of(split.files)
    content = [files, split.part, repr(split.formatter)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _content_hash(rows: TokenRows) -> str:
    digest = hashlib.sha256(rows.digests.tobytes())
    digest.update(rows.lengths.tobytes())
    digest.update(rows.label_counts.tobytes())
    return digest.hexdigest()


def _key(split: Split, encoder: _Encoder, folder: Path) -> str:
    """Return a short hash of everything that the tokens depend on."""
    content = {
        "format": FORMAT,
        "versions": [__version__, tokenizers.__version__],
        "files": FileHashes(folder / HASHES).of(split.files),
        "part": split.part,
        "formatter": repr(split.formatter),
        "limit": encoder.limit,
        "tokenizer": tokenizer_hash(encoder.tokenizer),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of what a tokenizer's output depends on: rules, special tokens and template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = _rules(backend) if backend else json.dumps(sorted(tokenizer.get_vocab().items()))
    special = [str(tokenizer.bos_token), str(tokenizer.eos_token), type(tokenizer).__name__]
    content = rules + json.dumps([special, tokenizer.chat_template])
    return hashlib.sha256(content.encode()).hexdigest()


def _rules(backend: tokenizers.Tokenizer) -> str:
    """Return a tokenizer's rules without the padding and truncation that its last call set."""
    if backend.padding or backend.truncation:
        backend = copy.deepcopy(backend)
        backend.no_padding()
        backend.no_truncation()
    return str(backend.to_str())


def _unwritable(folder: Path, error: OSError) -> Problem:
    what = f"the cache {folder} cannot be written"
    elsewhere = "--data_cache DIR"
    failure = write_failure(error)
    if failure is not None and failure.fewer_help:
        return Problem(what, failure.why, f"{failure.fix}, or name another folder: {elsewhere}")
    if error.errno == errno.ELOOP:
        why = f"{error.filename} is a link, which is not written through"
        return Problem(what, why, f"remove it, or name another folder: {elsewhere}")
    why = f"{error}; it does not have the tokens of this data, tokenizer and --context_length"
    return Problem(what, why, f"name a writable folder: {elsewhere}")
