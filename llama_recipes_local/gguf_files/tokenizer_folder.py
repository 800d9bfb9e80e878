"""Writes the tokenizer of a GGUF file into a folder, in the form that transformers loads."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.gguf_files.vocabulary import (
    BYTE_LEVEL,
    CONTROL,
    NORMAL,
    SPLITTING,
    WHOLE_WORDS,
    Vocabulary,
)
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.models.tokenizer_rules import MODEL, component
from llama_recipes_local.storage.publishing import write_json

_CLASS = "LlamaTokenizer"


def write_tokenizer(vocabulary: Vocabulary, folder: Path, positions: int) -> None:
    """Write ``tokenizer.json`` or ``tokenizer.model``, and ``tokenizer_config.json``.

    Args:
        vocabulary: of the file.
        folder: where to write.
        positions: the longest sequence that the model takes, in tokens.
    """
    if vocabulary.model == BYTE_LEVEL:
        _write_byte_level(vocabulary, folder, positions)
    else:
        _write_sentencepiece(vocabulary, folder, positions)


def read_tokenizer(vocabulary: Vocabulary, positions: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer in the folder of a file."""
    with TemporaryDirectory() as folder:
        write_tokenizer(vocabulary, Path(folder), positions)
        return AutoTokenizer.from_pretrained(folder)


def _names(vocabulary: Vocabulary) -> dict[str, str]:
    tokens = vocabulary.tokens
    words = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    return {
        words[name]: tokens[number] for name, number in vocabulary.ids().items() if name in words
    }


def _write_byte_level(vocabulary: Vocabulary, folder: Path, positions: int) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary.tokens
    words = vocabulary.splitting in WHOLE_WORDS
    model: Any = models.BPE(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=list(vocabulary.merges),
        ignore_merges=words,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = component("pre_tokenizer", SPLITTING[vocabulary.splitting])
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, normalized=False, special=kind == CONTROL)
        for token, kind in zip(tokens, vocabulary.kinds, strict=True)
        if kind != NORMAL
    ]
    tokenizer.add_tokens([each for each in added if not each.special])
    tokenizer.add_special_tokens([each for each in added if each.special])
    if vocabulary.add_begin or vocabulary.add_end:
        tokenizer.post_processor = _ends(vocabulary)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
        **_names(vocabulary),
    )
    made.chat_template = vocabulary.templates()
    made.save_pretrained(folder)


def _ends(vocabulary: Vocabulary) -> Any:
    """Return the rule that adds the begin and end tokens to a text."""
    from tokenizers import processors

    begin = vocabulary.begin if vocabulary.add_begin else None
    end = vocabulary.end if vocabulary.add_end else None
    used = [(vocabulary.tokens[each], each) for each in (begin, end) if each is not None]
    first = [vocabulary.tokens[begin]] if begin is not None else []
    last = [vocabulary.tokens[end]] if end is not None else []
    return processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{each}:1" for each in first), "$B:1", *last],
        special_tokens=used,
    )


def _write_sentencepiece(vocabulary: Vocabulary, folder: Path, positions: int) -> None:
    (folder / MODEL).write_bytes(sentencepiece_model(vocabulary))
    settings: dict[str, Any] = {
        "tokenizer_class": _CLASS,
        **_names(vocabulary),
        "add_bos_token": vocabulary.add_begin,
        "add_eos_token": vocabulary.add_end,
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }
    templates = vocabulary.templates()
    if isinstance(templates, dict):  # in one file, transformers reads a list
        templates = [{"name": name, "template": text} for name, text in templates.items()]
    if templates is not None:
        settings["chat_template"] = templates
    write_json(folder / "tokenizer_config.json", settings)


def sentencepiece_model(vocabulary: Vocabulary) -> bytes:
    """Return the bytes of a SentencePiece model with the same content as GGUF's values."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2  # made at run time, without types
    model = proto.ModelProto()
    rows = zip(vocabulary.tokens, vocabulary.scores, vocabulary.kinds, strict=True)
    for token, score, kind in rows:
        model.pieces.add(piece=token, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.BPE
    trainer.byte_fallback = True
    trainer.vocab_size = len(vocabulary.tokens)
    for name, number, unset in (
        ("unk_id", vocabulary.unknown, 0),
        ("bos_id", vocabulary.begin, -1),
        ("eos_id", vocabulary.end, -1),
        ("pad_id", vocabulary.padding, -1),
    ):
        setattr(trainer, name, unset if number is None else number)
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = vocabulary.space_prefix
    normalizer.remove_extra_whitespaces = False
    return bytes(model.SerializeToString())
