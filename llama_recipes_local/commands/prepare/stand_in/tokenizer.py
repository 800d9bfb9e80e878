"""The stand-in's tokenizer: byte-level BPE, which can encode any text."""

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llama_recipes_local.datasets import grammar

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(
    pairs: Iterable[tuple[str, str]], vocabulary: int, positions: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on sentences in the grammar data set's prompt, and on their corrections.

    Args:
        pairs: sentences and their corrections.
        vocabulary: maximum number of tokens, with the special ones; at least 259.
        positions: the longest sequence that the model takes, in tokens.

    Returns:
        A tokenizer that begins each text with ``<s>``, as Llama's does, and decodes what it encoded
        to the same text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(pairs), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def _texts(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for source, target in pairs:
        yield grammar.PROMPT.format(source)
        yield target
