"""Examples become the ids and labels that one works out by hand."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from llama_recipes_local.datasets import encoding
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.errors import UsageError

WORDS = ["<s>", "</s>", "<unk>", "ask", "say", "hi", "you", ":"]
BOS, EOS, UNK, ASK, SAY, HI, YOU, COLON = range(len(WORDS))
NO = -100


@pytest.fixture(scope="module")
def words() -> Any:
    """A tokenizer of whole words, which begins a text with <s> as Llama's does."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def pieces() -> Any:
    """A tokenizer as SentencePiece's: a space before the text, unknown characters as bytes."""
    merges = [("▁", "a"), ("b", "▁")]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary += ["▁", "a", "b", "▁a", "b▁"]
    backend = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(vocabulary)},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    backend.decoder = decoders.ByteFallback()
    backend.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python, which knows no offsets."""

    vocab_size = 128

    def get_vocab(self) -> dict[str, int]:
        return {chr(number): number for number in range(128)}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)


def one(tokenizer: Any, example: Any) -> tuple[list[int], list[int]]:
    (sample,) = encode(tokenizer, [example])
    assert sample["attention_mask"] == [1] * len(sample["input_ids"])
    return sample["input_ids"], sample["labels"]


def trained(tokenizer: Any, text: str, *spans: tuple[int, int]) -> list[str]:
    """The tokens of a text that are labels."""
    ids, labels = one(tokenizer, Marked("a" + text, tuple((s + 1, e + 1) for s, e in spans), True))
    assert all(label in (NO, token) for token, label in zip(ids, labels, strict=True))
    return tokenizer.convert_ids_to_tokens([label for label in labels if label != NO])


def test_a_pair(words: Any) -> None:
    ids, labels = one(words, Pair("ask :", "say hi"))
    assert ids == [BOS, ASK, COLON, SAY, HI, EOS]
    assert labels == [NO, NO, NO, SAY, HI, EOS]


def test_a_continuation(words: Any) -> None:
    ids, labels = one(words, Continuation("ask :", "say hi"))
    assert ids == [BOS, ASK, COLON, SAY, HI, EOS]
    assert labels == [NO, NO, NO, SAY, HI, EOS]


def test_no_token_spans_a_prompt_and_its_response(tokenizer: Any) -> None:
    """Generation begins with the prompt's own tokens, so training does, and no label is lost."""
    joined = tokenizer("th", add_special_tokens=False)["input_ids"]
    apart = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "th"]
    assert len(joined) == 1
    for example in (Pair("t", "h"), Continuation("t", "h"), Marked("th", ((1, 2),))):
        ids, labels = one(tokenizer, example)
        assert ids[-3:-1] == apart and labels[-3:-1] == [NO, apart[1]], example


def test_spans_of_a_text(words: Any) -> None:
    text = "ask : say hi ask : you"
    ids, labels = one(words, Marked(text, ((6, 12), (19, 22))))
    assert ids == [BOS, ASK, COLON, SAY, HI, ASK, COLON, YOU, EOS]
    assert labels == [NO, NO, NO, SAY, HI, NO, NO, YOU, EOS]


@pytest.mark.parametrize(
    ("spans", "end"), [(((0, 3),), NO), ((), NO), (((4, 6),), EOS), (None, EOS)]
)
def test_the_end_is_trained_if_the_last_span_reaches_it(words: Any, spans: Any, end: int) -> None:
    ids, labels = one(words, Marked("say hi", spans))
    assert ids == [BOS, SAY, HI, EOS]
    assert labels[-1] == end


def test_a_whole_text_is_trained_but_for_its_first_token(words: Any) -> None:
    assert one(words, Marked("say hi"))[1] == [NO, SAY, HI, EOS]
    assert one(words, Marked("say hi", complete=True)) == ([SAY, HI], [NO, HI])
    assert one(words, Marked("say hi", ((0, 6),), complete=True)) == ([SAY, HI], [NO, HI])


def test_a_text_with_its_own_begin_and_end_tokens_gets_no_second(words: Any) -> None:
    assert one(words, Marked("<s> say hi </s>"))[0] == [BOS, SAY, HI, EOS]
    ids, labels = one(words, Marked("<s> say </s>", ((4, 7),)))
    assert (ids, labels) == ([BOS, SAY, EOS], [NO, SAY, NO])


def test_kinds_may_be_mixed_and_keep_their_order(words: Any) -> None:
    examples = [
        Marked("say", ((0, 3),)),
        Pair("ask", "hi"),
        Continuation("ask ", "you"),
        Marked("hi"),
        Pair("you", "say"),
    ]
    together = encode(words, examples)
    assert together == [encode(words, [example])[0] for example in examples]
    assert [sample["input_ids"][1] for sample in together] == [SAY, ASK, ASK, HI, YOU]
    assert encode(words, []) == []


def test_more_than_a_batch_at_a_time(words: Any) -> None:
    examples = [Pair("ask", "say" if number % 3 else "hi you") for number in range(2500)]
    samples = encode(words, examples, attention_mask=False)
    assert samples == [
        {"input_ids": [BOS, ASK, SAY, EOS], "labels": [NO, NO, SAY, EOS]}
        if number % 3
        else {"input_ids": [BOS, ASK, HI, YOU, EOS], "labels": [NO, NO, HI, YOU, EOS]}
        for number in range(2500)
    ]


def test_a_token_across_a_border_is_trained(pieces: Any) -> None:
    # "▁a" holds the space before the stretch, "b▁" the one after it
    assert trained(pieces, " a bb", (1, 2), (3, 4)) == ["▁a", "b"]
    assert trained(pieces, "bb ", (0, 2)) == ["b", "b▁"]
    assert trained(pieces, "bb bb", (2, 3), (4, 5)) == ["b▁", "b"]
    # but for the border that generation begins at
    assert trained(pieces, " a", (1, 2)) == ["a"]
    assert trained(pieces, "bb b", (2, 3)) == ["▁"]


def test_no_neighbour_of_a_span_is_trained(pieces: Any) -> None:
    assert trained(pieces, "babab", (1, 2)) == ["a"]
    assert trained(pieces, "babab", (1, 2), (3, 5)) == ["a", "a", "b"]
    assert trained(pieces, "babab", (2, 2)) == []


def test_a_character_over_several_byte_tokens_is_trained_whole(pieces: Any, tokenizer: Any) -> None:
    snail = ["<0xF0>", "<0x9F>", "<0x90>", "<0x8C>"]
    assert trained(pieces, "b🐌b🐌", (1, 2)) == snail
    assert trained(pieces, "b🐌b🐌", (2, 4)) == ["b", *snail]
    assert trained(pieces, "b🐌b🐌", (2, 3)) == ["b"]
    (sample,) = encode(tokenizer, [Marked("b🐌b🐌c", ((1, 2),), True)])
    labels = [label for label in sample["labels"] if label != NO]
    assert len(labels) == 4 and tokenizer.decode(labels) == "🐌"


def test_a_space_that_the_tokenizer_adds_belongs_to_what_follows(pieces: Any) -> None:
    # of the first character there are two tokens: the space that is put before it, and itself
    ids, labels = one(pieces, Marked("ba", ((0, 2),)))
    assert pieces.convert_ids_to_tokens(ids) == ["<s>", "▁", "b", "a", "</s>"]
    assert labels == [NO, *ids[1:]]
    assert one(pieces, Marked("ba", ((1, 2),)))[1] == [NO, NO, NO, *ids[3:]]


def test_special_tokens_in_a_span(pieces: Any) -> None:
    text = "<s>b</s><s>a</s>"
    ids, labels = one(pieces, Marked(text, ((3, 8), (11, 16)), complete=True))
    # a piece of text after a special token is given its space too
    assert pieces.convert_ids_to_tokens(ids) == [
        *("<s>", "▁", "b", "</s>"),
        *("<s>", "▁a", "</s>"),
    ]
    assert labels == [NO, *ids[1:4], NO, *ids[5:]]


def test_a_tokenizer_without_offsets_trains_what_needs_none() -> None:
    letters = Letters(bos_token=None, eos_token=None)
    assert one(letters, Pair("a", "b")) == ([97, 98], [NO, 98])
    assert one(letters, Marked("ab")) == ([97, 98], [NO, 98])
    with pytest.raises(UsageError) as refused:
        encode(letters, [Marked("ab", ((0, 1),))])
    (problem,) = refused.value.problems
    assert problem.what == "Letters has no character offsets of tokens"
    assert "--local_dataset.labels=all" in problem.fix


def test_padding_and_truncation_of_a_tokenizer_file_are_ignored(words: Any, tmp_path: Path) -> None:
    words.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    cut = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert len(cut.backend_tokenizer.encode("say hi you").ids) == 9
    cut.backend_tokenizer.encode_special_tokens = True
    said = [Pair("say", "hi you : say")]
    assert encode(cut, said) == encode(words, said)


def test_without_a_token_that_ends_a_text(words: Any) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer)
    assert one(endless, Pair("ask", "hi")) == ([ASK, HI], [NO, HI])
    assert one(endless, Marked("", complete=True)) == ([], [])
    assert one(endless, Marked("ask hi")) == ([ASK, HI], [NO, HI])
    assert one(endless, Continuation("ask ", "hi")) == ([ASK, HI], [NO, HI])


def test_long_texts_are_tokenised_a_few_at_a_time(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["She goes. " * count for count in (1, 40, 3, 9, 200, 1)]
    examples = [
        example
        for text in texts
        for example in (Pair(text, "yes"), Continuation(text, "no"), Marked(text, ((4, 8),)))
    ]
    whole = encode(tokenizer, examples)
    given: list[list[int]] = []

    def noted(encoder: Any, tokenizer: Any, chosen: Any) -> Any:
        given.append([encoding._size(each) for each in chosen])
        return encoder(tokenizer, chosen)

    encoders = {kind: partial(noted, encoder) for kind, encoder in encoding._ENCODERS.items()}
    monkeypatch.setattr(encoding, "_ENCODERS", encoders)
    monkeypatch.setattr(encoding, "CHARACTERS", 500)
    assert encode(tokenizer, examples) == whole
    assert len(given) == 12 and all(sum(sizes) <= 500 for sizes in given if len(sizes) > 1)
