"""Turns a split into samples of token ids and labels."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.concatenator import IGNORE_INDEX
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.splits import Split
from llama_recipes_local.datasets.tokenization import Sample, encode_pairs, encode_prefixed


def load_split(split: Split, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """Tokenise the records of a split, blank ones left out."""
    examples = [split.formatter(record, tokenizer) for record in split.records()]
    return [_encode(example, tokenizer) for example in examples if example is not None]


def _encode(example: Example, tokenizer: PreTrainedTokenizerBase) -> Sample:
    if isinstance(example, Marked):
        return _encode_marked(example, tokenizer)
    pair = [(example.prompt, example.response)]
    encode = {Pair: encode_pairs, Continuation: encode_prefixed}[type(example)]
    return encode(tokenizer, pair)[0]


def _encode_marked(example: Marked, tokenizer: Any) -> Sample:
    encoded = tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True)
    spans = example.spans if example.spans is not None else ((0, len(example.text)),)
    ids, labels = list(encoded["input_ids"]), []
    for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True):
        inside = any(first <= start and end <= last for first, last in spans)
        labels.append(token if inside else IGNORE_INDEX)
    if not example.complete:
        end_label = bool(spans) and spans[-1][1] == len(example.text)
        ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        labels = [IGNORE_INDEX, *labels, tokenizer.eos_token_id if end_label else IGNORE_INDEX]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}
