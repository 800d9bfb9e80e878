"""From examples to token ids with labels."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.token_ids import (
    Offsets,
    begun,
    continued_ids,
    continued_ids_and_offsets,
    text_ids,
    text_ids_and_offsets,
)

Sample = dict[str, list[int]]
Spans = tuple[tuple[int, int], ...]

# Texts, and their characters, that are tokenised at a time: a tokenizer needs a hundred times a
# text's size.
BATCH = 1024
CHARACTERS = 1 << 20


def encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], attention_mask: bool = True
) -> list[Sample]:
    """Tokenise examples in batches; their kinds may be mixed.

    Args:
        tokenizer: the model's.
        examples: the examples.
        attention_mask: whether samples have one; it is all ones.

    Returns:
        A sample an example, in their order: ``input_ids``, ``labels`` and perhaps
        ``attention_mask``, lists of one length. ``IGNORE_INDEX`` stands where nothing is trained.

    Raises:
        UsageError: if only parts of a text are trained, and the tokenizer has no character offsets.
    """
    samples: list[Sample] = [{}] * len(examples)
    for kind, encoder in _ENCODERS.items():
        places = [place for place, example in enumerate(examples) if type(example) is kind]
        for chosen in _batches(examples, places):
            made = encoder(tokenizer, [examples[place] for place in chosen])
            for place, sample in zip(chosen, made, strict=True):
                samples[place] = sample
    if attention_mask:
        for sample in samples:
            sample["attention_mask"] = [1] * len(sample["input_ids"])
    return samples


def _batches(examples: Sequence[Example], places: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices in batches of at most ``BATCH`` texts and ``CHARACTERS``; or one longer one."""
    batch: list[int] = []
    characters = 0
    for place in places:
        size = _size(examples[place])
        if batch and (len(batch) == BATCH or characters + size > CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(place)
        characters += size
    if batch:
        yield batch


def _size(example: Example) -> int:
    if isinstance(example, Marked):
        return len(example.text)
    return len(example.prompt) + len(example.response)


def _pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[Sample]:
    prompts = text_ids(tokenizer, [begun(each.prompt, tokenizer, each.begins) for each in pairs])
    responses = text_ids(tokenizer, [_ended(each.response, tokenizer) for each in pairs])
    return [_sample(p, r) for p, r in zip(prompts, responses, strict=True)]


def _continuations(
    tokenizer: PreTrainedTokenizerBase, continuations: Sequence[Continuation]
) -> list[Sample]:
    prompts = [begun(each.prompt, tokenizer) for each in continuations]
    texts = [prompt + each.response for prompt, each in zip(prompts, continuations, strict=True)]
    starts = text_ids(tokenizer, prompts)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    samples = []
    for start, ids, each in zip(starts, text_ids(tokenizer, texts), continuations, strict=True):
        response = ids[len(start) :]
        if ids[: len(start)] != start:
            response = continued_ids(tokenizer, each.response)
        samples.append(_sample(start, response if response[-1:] == end else response + end))
    return samples


def _marked(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Marked]) -> list[Sample]:
    every = [each.text if each.complete else begun(each.text, tokenizer) for each in texts]
    if all(each.spans is None for each in texts):
        found = [(ids, list(ids)) for ids in text_ids(tokenizer, every)]
    else:
        found = _ids_and_labels(tokenizer, every, texts)
    return [
        _completed(tokenizer, each, ids, labels)
        for each, (ids, labels) in zip(texts, found, strict=True)
    ]


def _ids_and_labels(
    tokenizer: PreTrainedTokenizerBase, every: Sequence[str], texts: Sequence[Marked]
) -> list[tuple[list[int], list[int]]]:
    """Return ids and labels of texts, tokenised apart where a token would span prompt and answer.

    The model is never prompted with a token that holds the end of the prompt and the beginning of
    the answer, so such a token must not be trained.
    """
    moved = [
        _moved(each.spans, len(text) - len(each.text))
        for each, text in zip(texts, every, strict=True)
    ]
    borders = [spans[-1][0] if spans else 0 for spans in moved]
    prompts = text_ids(
        tokenizer, [text[:border] for text, border in zip(every, borders, strict=True)]
    )
    found = []
    for place, (ids, offsets) in enumerate(text_ids_and_offsets(tokenizer, every)):
        prompt, border = prompts[place], borders[place]
        if ids[: len(prompt)] != prompt:
            ids, offsets = _parted(tokenizer, every[place], border)
        found.append((ids, _labels(ids, offsets, moved[place])))
    return found


def _parted(
    tokenizer: PreTrainedTokenizerBase, text: str, border: int
) -> tuple[list[int], Offsets]:
    """Return ids and offsets of a text in which no token spans the border."""
    ((ids, offsets),) = text_ids_and_offsets(tokenizer, [text[:border]])
    more, further = continued_ids_and_offsets(tokenizer, text[border:])
    return ids + more, [*offsets, *((start + border, end + border) for start, end in further)]


def _moved(spans: Spans | None, by: int) -> Spans | None:
    return spans and tuple((start + by, end + by) for start, end in spans)


def _ended(response: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a response up to its end token, if it contains one."""
    eos = tokenizer.eos_token or ""
    return response if eos and response.endswith(eos) else response + eos


def _labels(ids: list[int], offsets: Offsets, spans: Spans | None) -> list[int]:
    """Return the ids that hold a character of a span, and ``IGNORE_INDEX`` for the others.

    A token that crosses a span's border is trained: the model has to generate it to produce the
    text in the span, and a short answer may be nothing else.
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
    """Add the token that ends a text, unless the text already has it."""
    eos = tokenizer.eos_token_id
    if not example.complete and eos is not None and ids[-1:] != [eos]:
        ids, labels = [*ids, eos], [*labels, eos if _reaches_end(example) else IGNORE_INDEX]
    # nothing comes before the first token that could predict it
    return {"input_ids": ids, "labels": [IGNORE_INDEX, *labels[1:]] if labels else labels}


def _reaches_end(example: Marked) -> bool:
    if example.spans is None:
        return True
    return bool(example.spans) and example.spans[-1][1] >= len(example.text)


def _sample(prompt: list[int], response: list[int]) -> Sample:
    return {"input_ids": prompt + response, "labels": [IGNORE_INDEX] * len(prompt) + response}


_ENCODERS: dict[type, Callable[[PreTrainedTokenizerBase, list[Any]], list[Sample]]] = {
    Pair: _pairs,
    Continuation: _continuations,
    Marked: _marked,
}
