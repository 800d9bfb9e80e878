"""From examples to token ids with labels."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.errors import refusal

Sample = dict[str, list[int]]
# A token's first character and the one after its last.
Offsets = Sequence[tuple[int, int]]

# Texts that are tokenised at a time.
BATCH = 1024


def encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], attention_mask: bool = True
) -> list[Sample]:
    """Tokenise examples of any kind, mixed or not, in batches.

    Args:
        tokenizer: the model's.
        examples: the examples.
        attention_mask: whether samples have one; each token counts, so it is all ones.

    Returns:
        A sample an example, in their order: ``input_ids``, ``labels`` and perhaps
        ``attention_mask``, lists of one length. ``IGNORE_INDEX`` stands where nothing is trained.

    Raises:
        UsageError: if only parts of a text are trained, and the tokenizer has no character offsets.
    """
    samples: list[Sample] = [{}] * len(examples)
    for kind, encoder in _ENCODERS.items():
        places = [place for place, example in enumerate(examples) if type(example) is kind]
        for start in range(0, len(places), BATCH):
            chosen = places[start : start + BATCH]
            made = encoder(tokenizer, [examples[place] for place in chosen])
            for place, sample in zip(chosen, made, strict=True):
                samples[place] = sample
    if attention_mask:
        for sample in samples:
            sample["attention_mask"] = [1] * len(sample["input_ids"])
    return samples


def _pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[Sample]:
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    prompts = _ids(tokenizer, [bos + pair.prompt for pair in pairs])
    responses = _ids(tokenizer, [pair.response + eos for pair in pairs])
    return [_sample(p, r) for p, r in zip(prompts, responses, strict=True)]


def _continuations(
    tokenizer: PreTrainedTokenizerBase, continuations: Sequence[Continuation]
) -> list[Sample]:
    prompts = _ids(tokenizer, [each.prompt for each in continuations], special=True)
    texts = _ids(tokenizer, [each.prompt + each.response for each in continuations], special=True)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [
        _sample(text[: len(prompt)], text[len(prompt) :] + end)
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def _marked(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Marked]) -> list[Sample]:
    every = [each.text for each in texts]
    if all(each.spans is None for each in texts):
        encoded = _ids(tokenizer, every)
        labels = [list(ids) for ids in encoded]
    else:
        encoded, offsets = _ids_and_offsets(tokenizer, every)
        labels = [
            _labels(ids, places, each.spans)
            for ids, places, each in zip(encoded, offsets, texts, strict=True)
        ]
    return [
        _completed(tokenizer, each, ids, trained)
        for each, ids, trained in zip(texts, encoded, labels, strict=True)
    ]


def _labels(
    ids: list[int], offsets: Offsets, spans: tuple[tuple[int, int], ...] | None
) -> list[int]:
    """Return the ids that hold a character of a span, and ``IGNORE_INDEX`` for the others.

    A token that straddles a span's border is trained: to generate what is in the span, the model
    has to generate that token, and a short answer may be nothing else.
    """
    if spans is None:
        return list(ids)
    labels = [IGNORE_INDEX] * len(ids)
    for start, end in spans:
        first = bisect_right(offsets, start, key=_end)
        last = bisect_left(offsets, end, key=_start)
        labels[first:last] = ids[first:last]
    return labels


def _start(offset: tuple[int, int]) -> int:
    return offset[0]


def _end(offset: tuple[int, int]) -> int:
    return offset[1]


def _completed(
    tokenizer: PreTrainedTokenizerBase, example: Marked, ids: list[int], labels: list[int]
) -> Sample:
    """Add the tokens that begin and end a text, unless the text already has them."""
    if not example.complete:
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is not None and ids[:1] != [bos]:
            ids, labels = [bos, *ids], [IGNORE_INDEX, *labels]
        if eos is not None and ids[-1:] != [eos]:
            ids, labels = [*ids, eos], [*labels, eos if _reaches_end(example) else IGNORE_INDEX]
    # nothing comes before the first token that could predict it
    return {"input_ids": ids, "labels": [IGNORE_INDEX, *labels[1:]] if labels else labels}


def _reaches_end(example: Marked) -> bool:
    if example.spans is None:
        return True
    return bool(example.spans) and example.spans[-1][1] >= len(example.text)


def _sample(prompt: list[int], response: list[int]) -> Sample:
    return {"input_ids": prompt + response, "labels": [IGNORE_INDEX] * len(prompt) + response}


def _ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool = False
) -> list[list[int]]:
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        encodings = _backend(tokenizer).encode_batch_fast(texts, add_special_tokens=special)
        return [encoding.ids for encoding in encodings]
    options: dict[str, Any] = {"add_special_tokens": special, "verbose": False}
    return tokenizer(texts, **options)["input_ids"]


def _ids_and_offsets(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> tuple[list[list[int]], list[Offsets]]:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise refusal(
            f"{type(tokenizer).__name__} has no character offsets of tokens",
            "they show which tokens of a text are trained",
            "use a folder with a tokenizer.json, or train on all with --local_dataset.labels=all",
        )
    encodings = _backend(tokenizer).encode_batch(texts, add_special_tokens=False)
    return [each.ids for each in encodings], [each.offsets for each in encodings]


def _backend(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Return the tokenizer below transformers' wrapper, which is slower by half."""
    backend = tokenizer.backend_tokenizer
    # a tokenizer.json may ask for these, and the wrapper turns them off as well
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False
    return backend


_ENCODERS: dict[type, Callable[[PreTrainedTokenizerBase, list[Any]], list[Sample]]] = {
    Pair: _pairs,
    Continuation: _continuations,
    Marked: _marked,
}
