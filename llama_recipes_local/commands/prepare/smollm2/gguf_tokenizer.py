"""A Hugging Face tokenizer of a GGUF file's vocabulary, merges and pre-tokenizer.

``smollm`` is llama.cpp's name of GPT-2's rule for splitting text, with each digit alone.
transformers' own reading of GGUF leaves the digits out: it makes one token of ``20`` and so gives
the model ids that it has rarely seen.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama_recipes_local.commands.prepare.smollm2.gguf_metadata import Vocabulary


def make_tokenizer(vocabulary: Vocabulary, positions: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer.

    Args:
        vocabulary: of the file.
        positions: the longest sequence that the model takes, in tokens.
    """
    tokens = vocabulary.tokens
    ids = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=vocabulary.merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(tokens[place], normalized=False, special=True) for place in vocabulary.control]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[vocabulary.begin],
        eos_token=tokens[vocabulary.end],
        unk_token=tokens[vocabulary.unknown],
        pad_token=tokens[vocabulary.padding],
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = vocabulary.chat_template
    return made
