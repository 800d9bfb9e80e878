"""A run's data, tokenised and audited before any weight is loaded."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.data import audit
from llama_recipes_local.data.audit import Counts, SplitAudit
from llama_recipes_local.data.endings import Endings, find_endings
from llama_recipes_local.data.mixed_rows import interleaved
from llama_recipes_local.data.mixing import (
    MOST_TIMES,
    USEFUL_TIMES,
    mixed,
    mixed_audit,
    mixed_fingerprint,
    shares,
    times_needed,
)
from llama_recipes_local.data.streaming import is_stream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.asked_text import asked_text
from llama_recipes_local.datasets.base import find_split, split_name
from llama_recipes_local.datasets.prepared_data import PART_NAMES, RunData
from llama_recipes_local.datasets.prompt_template import PROMPT, PromptTemplate
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.sources import load_dataset
from llama_recipes_local.datasets.stop_tokens import ends_of_folder, stop_ids
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.datasets.token_ids import begin_token
from llama_recipes_local.datasets.tokenized_splits import (
    Loaded,
    load_samples,
    load_split,
    stream_split,
    tokenizer_hash,
)
from llama_recipes_local.datasets.tokens_folder import load_tokens
from llama_recipes_local.errors import Problem, caught, refusal, refuse
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.models.new_tokens import find_new_tokens
from llama_recipes_local.run import Run


def prepare_data(
    run: Run,
    parts: Sequence[Part] = tuple(PART_NAMES),
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> RunData:
    """Tokenise splits, or take them from the cache, and audit them.

    Args:
        run: the run.
        parts: the splits; both, unless nothing is trained.
        tokenizer: None means the run's, loaded from its folder.

    Raises:
        UsageError: if a record cannot be used, or a split has nothing to train or validate on.
    """
    tokenizer = tokenizer or run_tokenizer(run)
    data = join_sources(run, prepare_sources(run, parts, tokenizer), tokenizer)
    data.new_tokens = find_new_tokens(run.train, tokenizer, data.splits.values())
    return data


def _prepare_one(
    run: Run, parts: Sequence[Part], tokenizer: PreTrainedTokenizerBase, source: str = ""
) -> RunData:
    """Prepare the one data set of a run; ``source`` is its name in a mixture."""
    data = RunData(
        tokenizer=tokenizer_hash(tokenizer),
        prompt_template=_prompt_template(run, parts[0], tokenizer),
    )
    for part in parts:
        name = PART_NAMES[part]
        title = f"--> {source}{': ' if source else ''}{name} data"
        loaded = _load(run, part, tokenizer)
        if isinstance(loaded, Loaded):
            print(f"{title}: {len(loaded.rows):,} rows, {loaded.how}")
            data.splits[part] = loaded.rows
            stops = _stops(run, tokenizer, data.prompt_template)
            data.audits[name] = replace(
                loaded.audit, endings=_endings(loaded.rows, stops, tokenizer)
            )
            data.fingerprints[name] = loaded.fingerprint
        else:
            how = "streamed" if is_stream(loaded) else "batched by its own collator"
            print(f"{title}: {how}, not audited")
            data.splits[part] = loaded
    _refuse_empty(data.audits, run.train)
    if data.prompt_template is not None:
        _refuse_endless(data.audits)
    data.example = _example(run, data, tokenizer)
    return data


def prepare_sources(
    run: Run, parts: Sequence[Part], tokenizer: PreTrainedTokenizerBase
) -> dict[str, RunData]:
    """Prepare each source of a run separately, or take tokens that were prepared in advance.

    Raises:
        UsageError: with what is wrong with any of them.
    """
    if run.train.tokens_path:
        folder = Path(run.train.tokens_path)
        print(f"--> data: tokens made ahead, of {folder}")
        return load_tokens(folder, parts)
    if not run.mixed:
        return {run.train.dataset: _prepare_one(run, parts, tokenizer)}
    prepared: dict[str, RunData] = {}
    problems: list[Problem] = []
    for source in run.mixed:
        train = replace(run.train, dataset=source.dataset)
        alone = replace(run, train=train, dataset=source.config, mixed=[])
        with caught() as found:
            data = prepared[source.name] = _prepare_one(alone, parts, tokenizer, source.name)
            refuse(untokenized(f"{source.name} in a mixture", data))
        problems += found
    refuse(problems)
    return prepared


def join_sources(
    run: Run, prepared: dict[str, RunData], tokenizer: PreTrainedTokenizerBase
) -> RunData:
    """Return the data of a run from its prepared sources.

    Raises:
        UsageError: if a source of a mixture would be repeated too often.
    """
    if not run.mixed:
        (data,) = prepared.values()
        return data
    _tell_prompts(run.main_source.name, prepared)
    return _mixed_data(run, prepared, tokenizer)


def _mixed_data(
    run: Run, prepared: dict[str, RunData], tokenizer: PreTrainedTokenizerBase
) -> RunData:
    """Return the data of a mixture from its prepared sources."""
    weights = {source.name: source.weight for source in run.mixed}
    main = prepared[run.main_source.name]
    data = replace(main, splits={}, audits={}, fingerprints={})
    data.sources = {name: each.audits for name, each in prepared.items()}
    templates = [each.prompt_template for each in prepared.values()]
    stops = {stop for each in templates for stop in _stops(run, tokenizer, each)}
    for part in main.splits:
        name, splits = PART_NAMES[part], {n: each.splits[part] for n, each in prepared.items()}
        if part == "train":
            refuse(_repetitions(splits, weights))
            rows = mixed(splits, weights, run.train.seed)
        else:
            rows = interleaved(splits)
        found = mixed_audit(rows, [each.audits[name] for each in prepared.values()])
        data.splits[part] = rows
        data.audits[name] = replace(found, endings=_endings(rows, stops, tokenizer))
        hashes = [each.fingerprints[name] for each in prepared.values()]
        data.fingerprints[name] = mixed_fingerprint(hashes, list(weights.values()))
    if "train" in main.splits:
        validation = {n: len(each.splits.get("test", ())) for n, each in prepared.items()}
        data.shares = shares(data.splits["train"], weights, validation)
        for name, share in data.shares.items():
            if share.times > USEFUL_TIMES:
                print(
                    f"--> {name} comes {share.times:,.1f} times in an epoch, which ends once every "
                    "row of every source has come; a smaller weight repeats it less"
                )
    return data


def untokenized(what: str, data: RunData) -> list[Problem]:
    """Return a problem for a source whose rows are not available; ``what`` names it in messages."""
    if all(isinstance(rows, TokenRows) for rows in data.splits.values()):
        return []
    return [
        Problem(
            what,
            "its samples are a stream, or for a collator of its own: their tokens are not known",
            "return a list of samples; with --batching_strategy packing no collator is used",
        )
    ]


def _repetitions(splits: dict[str, TokenRows], weights: dict[str, float]) -> list[Problem]:
    """Return a problem for each source that would be repeated too often."""
    labels = [int(rows.label_counts.sum(dtype="int64")) for rows in splits.values()]
    times = times_needed(labels, list(weights.values()))
    return [
        Problem(
            f"{name} would come {often:,.0f} times in an epoch",
            f"an epoch has every row of every source, and {name} has {have:,} label tokens; "
            f"more than {MOST_TIMES:,} times is refused",
            f"give it a smaller weight in --dataset, {weights[name] / often:.3g} for once",
        )
        for name, have, often in zip(splits, labels, times, strict=True)
        if often > MOST_TIMES
    ]


def _tell_prompts(main: str, prepared: dict[str, RunData]) -> None:
    if any(each.prompt_template != prepared[main].prompt_template for each in prepared.values()):
        print(
            f"--> prompts: the sources have different ones; what generates afterwards uses those "
            f"of {main}, the largest weight"
        )


def _example(run: Run, data: RunData, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the data set's example, or for the user's own data one of its validation part."""
    declared, rows = DATASETS[run.train.dataset].example, data.splits.get("test")
    if declared or data.prompt_template is None or not isinstance(rows, TokenRows):
        return declared
    return asked_text(rows, data.prompt_template, tokenizer)


def _stops(
    run: Run, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate | None
) -> list[int]:
    ends = ends_of_folder(Path(run.train.model_name).expanduser())
    return stop_ids(template, tokenizer, ends)


def _endings(
    rows: TokenRows, stops: Collection[int], tokenizer: PreTrainedTokenizerBase
) -> Endings:
    begins = bool(begin_token(tokenizer))
    return find_endings(rows, stops, tokenizer.bos_token_id, begins)


def _refuse_endless(audits: dict[str, SplitAudit]) -> None:
    """Refuse to train a model that never stops, unless all rows were truncated.

    Raises:
        UsageError: if no training row ends in a token that generation stops at.
    """
    found = audits.get("train")
    if found is None or found.endings is None or not found.rows or found.endings.stopping:
        return
    if found.counts.truncated + found.counts.divided < found.counts.records:
        raise refusal(
            f"none of the {found.rows:,} training rows ends in a token that generation stops at",
            "a model that is trained on them answers until its length is up; the tokens are "
            "eos_token of the tokenizer and eos_token_id of generation_config.json",
            "use a template whose texts end with eos_token, --local_dataset.template=guanaco; have "
            "chat_template.jinja in the model's folder write eos_token after an answer; or name "
            "the tokenizer that has the template's end token: --tokenizer_name DIR",
        )


def _load(run: Run, part: Part, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a split as ``Loaded``; a stream, or data with a user's collator, unchanged."""
    train, dataset = run.train, DATASETS[run.train.dataset]
    assert run.dataset is not None
    split = find_split(dataset, run.dataset, part, tokenizer)
    if split is not None:
        if getattr(run.dataset, "streaming", False):
            return stream_split(split, tokenizer, train.context_length)
        return load_split(split, tokenizer, train.context_length, train.data_cache)
    samples = load_dataset(dataset, run.dataset, tokenizer, split_name(run.dataset, part))
    if is_stream(samples) or _has_collator(run, tokenizer):
        return samples
    return load_samples(samples, train.context_length)


def _prompt_template(
    run: Run, part: Part, tokenizer: PreTrainedTokenizerBase
) -> PromptTemplate | None:
    dataset = DATASETS[run.train.dataset]
    split = find_split(dataset, run.dataset, part, tokenizer)
    if split is None:
        return None
    template = split.formatter.prompt_template(tokenizer)
    if dataset.for_tokenizer is None and has_chat_template(tokenizer):
        print(
            f"--> prompts: those of {dataset.name}, {_beginning(template)}; the model's own chat "
            "template is not used: for that, read the files as --dataset local_dataset"
        )
    return template


def _beginning(template: PromptTemplate) -> str:
    if template.kind != PROMPT:
        return "in turns"
    quoted = repr(template.template)
    return quoted if len(quoted) <= 60 else f"{quoted[:56]}...{quoted[-1]}"


def _has_collator(run: Run, tokenizer: PreTrainedTokenizerBase) -> bool:
    collator = DATASETS[run.train.dataset].collator
    packing = run.train.batching_strategy == "packing"
    return not packing and collator is not None and collator(run.dataset, tokenizer) is not None


def _refuse_empty(audits: dict[str, SplitAudit], train: configs.train_config) -> None:
    needed = [name for name in audits if name == "train" or train.run_validation]
    problems = [
        Problem(
            f"the {name} data of --dataset {train.dataset} has no label to "
            f"{'train' if name == 'train' else 'validate'} on",
            audit.describe(audits[name].counts),
            _labels(name, audits[name].counts, train.dataset),
        )
        for name in needed
        if not audits[name].label_tokens
    ]
    refuse(problems)


def _labels(name: str, counts: Counts, dataset: str) -> str:
    """Return the fix for a split that has no label."""
    fixes = ["fill in the responses"] if counts.blank else []
    if counts.without_label:
        fixes.append("give records a turn of the assistant's whose weight is not 0")
    if name == "train":
        return ", or ".join([*fixes, "name other data (datasets/README.md)"])
    if dataset == "local_dataset":
        fixes.append("name a file to validate on: --local_dataset.validation_path=PATH")
    return ", or ".join([*fixes, "train without validation: --run_validation False"])
