"""Tiny models that are built as published Llamas are: their configuration, tokenizer and template.

Sizes and vocabularies are scaled down, and weights are random; keys and other values are those of
the published folders. Templates are this file's own words with the constructs of theirs.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

MARK = "\N{LOWER ONE EIGHTH BLOCK}"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
DEEPSEEK = (
    "<\N{FULLWIDTH VERTICAL LINE}begin\N{LOWER ONE EIGHTH BLOCK}of"
    "\N{LOWER ONE EIGHTH BLOCK}sentence\N{FULLWIDTH VERTICAL LINE}>",
    "<\N{FULLWIDTH VERTICAL LINE}end\N{LOWER ONE EIGHTH BLOCK}of"
    "\N{LOWER ONE EIGHTH BLOCK}sentence\N{FULLWIDTH VERTICAL LINE}>",
    "<\N{FULLWIDTH VERTICAL LINE}User\N{FULLWIDTH VERTICAL LINE}>",
    "<\N{FULLWIDTH VERTICAL LINE}Assistant\N{FULLWIDTH VERTICAL LINE}>",
    "<think>",
    "</think>",
)
SMOL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>")
YI = ("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
ENGLISH = """She went to school yesterday, and we'll ask her: what did you learn there?
Below is an instruction that describes a task. Write a response that completes the request.
I have 3 apples and 12,500 books.\tHe doesn't know where the children's toys are.
def add(first, second):\n    return first + second\nOnce upon a time there was a king.
user assistant system You are a helpful assistant. Correct this to standard English.
"""
CHINESE = """从前有一座山。山上有一座庙。今天天气很好。我们去公园散步吧。
请把下面的句子翻译成英文。人工智能正在改变我们的生活。学习中文很有意思。
"""

HEADERS = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
    "{%- if messages[0].role == 'system' %}{%- set said = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set said = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}"
    "{{- said + '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{{- message.content | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>\\n' + message.content + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}"
)
INSTRUCTION = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + message.content | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + message.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}"
    f"{{{{- '{DEEPSEEK[2]}' + message.content }}}}{{%- else %}}"
    "{%- set said = message.content.split('</think>') | last %}"
    f"{{{{- '{DEEPSEEK[3]}' + said + '{DEEPSEEK[1]}' }}}}{{%- endif %}}{{%- endfor %}}"
    f"{{%- if add_generation_prompt %}}{{{{- '{DEEPSEEK[3]}<think>\\n' }}}}{{%- endif %}}"
)


def llama3_scaling(factor: float) -> dict[str, Any]:
    """Return Llama 3.1's rotary scaling; 3.2 has another factor."""
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a published folder holds.

    Attributes:
        tokenizer: writes the tokenizer's files into a folder.
        tokenizer_config: of ``tokenizer_config.json``.
        config: of ``config.json``; tokens are named by their texts.
        generation: of ``generation_config.json``, likewise.
        more_rows: rows of the embedding beyond the tokenizer's own file: for padding, or unused.
    """

    tokenizer: Any
    tokenizer_config: Mapping[str, Any]
    config: Mapping[str, Any]
    generation: Mapping[str, Any] = field(default_factory=dict)
    more_rows: int = 0


def byte_level(
    folder: Path, special: Sequence[str], split: str, bos: str = "", plain: Iterable[str] = ()
) -> None:
    """Write a ``tokenizer.json`` as Llama 3's, or as GPT-2's with another split.

    Args:
        folder: where to.
        special: special tokens, in the order of their ids.
        split: how a text is split before its pieces are merged.
        bos: what begins a text; empty for nothing.
        plain: those of ``special`` that are not marked as such.
    """
    backend = Tokenizer(models.BPE(ignore_merges=True))
    parts = pre_tokenizers.Split(Regex(split), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([parts, bytes_only])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    backend.train_from_iterator([*ENGLISH.splitlines(), *CHINESE.splitlines()] * 9, trainer)
    for token in special:
        marked = token not in plain
        backend.add_tokens([AddedToken(token, normalized=False, special=marked)])
    if bos:
        first = (bos, backend.token_to_id(bos))
        pair = f"{bos} $A {bos}:1 $B:1"
        backend.post_processor = TemplateProcessing(f"{bos} $A", pair, special_tokens=[first])
    backend.save(str(folder / "tokenizer.json"))


def sentence_pieces(
    folder: Path,
    also: Sequence[str] = (),
    names: tuple[str, str] = ("<s>", "</s>"),
    space_first: bool = True,
    chinese: bool = False,
    converted: bool = False,
    size: int = 460,
) -> None:
    """Write a ``tokenizer.model`` as Llama 2's.

    Args:
        folder: where to.
        also: pieces that are special tokens.
        names: the tokens that begin and end a text.
        space_first: whether a text's first word has a space mark.
        chinese: whether Chinese pieces are added after the others, all of score 0, as one merges
            two models into one.
        converted: whether to add a ``tokenizer.json`` of it, as transformers 4 wrote it.
        size: pieces.
    """
    prefix = folder / "tokenizer"
    train = partial(
        sentencepiece.SentencePieceTrainer.train,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=space_first,
        control_symbols=list(also),
        minloglevel=2,
    )
    train(
        sentence_iterator=iter(ENGLISH.splitlines() * 20),
        model_prefix=str(prefix),
        vocab_size=size,
        bos_piece=names[0],
        eos_piece=names[1],
    )
    prefix.with_suffix(".vocab").unlink()
    if chinese:
        train(
            sentence_iterator=iter(CHINESE.splitlines() * 20),
            model_prefix=str(folder / "added"),
            vocab_size=400,
        )
        _merge_models(prefix.with_suffix(".model"), folder / "added.model")
    if converted:
        _write_as_transformers_4(folder, names[0], space_first)


def _merge_models(first: Path, second: Path) -> None:
    """Append a model's pieces to another's, with the score 0, and remove its files."""
    merged, added = (sentencepiece_model_pb2.ModelProto() for _ in range(2))
    merged.ParseFromString(first.read_bytes())
    added.ParseFromString(second.read_bytes())
    known = {piece.piece for piece in merged.pieces}
    for piece in added.pieces:
        if piece.piece not in known:
            merged.pieces.add(piece=piece.piece, score=0)
    first.write_bytes(merged.SerializeToString())
    second.unlink()
    second.with_suffix(".vocab").unlink()


def _write_as_transformers_4(folder: Path, bos: str, space_first: bool) -> None:
    """Write a ``tokenizer.json`` with the rules that transformers 4 took from the model."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    scores = {piece.piece: (place, piece.score) for place, piece in enumerate(proto.pieces)}
    merges = [
        (scores[piece][1], piece[:cut], piece[cut:])
        for piece in scores
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    merges.sort(key=lambda each: -each[0])
    model = models.BPE(
        {piece: place for piece, (place, _) in scores.items()},
        [(left, right) for _, left, right in merges],
        unk_token=proto.trainer_spec.unk_piece,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.add_special_tokens(
        [
            AddedToken(piece.piece, normalized=False)
            for piece in proto.pieces
            if piece.type in (piece.CONTROL, piece.UNKNOWN)
        ]
    )
    backend.post_processor = TemplateProcessing(
        f"{bos} $A", f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, scores[bos][0])]
    )
    unspaced = [decoders.Strip(" ", 1, 0)] if space_first else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *unspaced]
    )
    content = json.loads(backend.to_str())
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    prepend = [{"type": "Prepend", "prepend": MARK}] if space_first else []
    content["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, replace]}
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
LLAMA2 = LLAMA | {
    "bos_token_id": "<s>",
    "eos_token_id": "</s>",
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
}
LLAMA31 = LLAMA | {
    "bos_token_id": LLAMA3[0],
    "eos_token_id": [LLAMA3[1], LLAMA3[5], LLAMA3[6]],
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "rope_scaling": llama3_scaling(8.0),
    "rope_theta": 500000.0,
}
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
ENDS31 = {name: LLAMA31[name] for name in ("bos_token_id", "eos_token_id")}
ENDS2 = {name: LLAMA2[name] for name in ("bos_token_id", "eos_token_id")}
NAMES31 = {
    "bos_token": LLAMA3[0],
    "eos_token": LLAMA3[6],
    "chat_template": HEADERS,
    "clean_up_tokenization_spaces": True,
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": 131072,
    "tokenizer_class": "PreTrainedTokenizerFast",
}
NAMES2 = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 1000000000000000019884624838656,
    "pad_token": None,
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}
INFILL = {
    "eot_token": f"{MARK}<EOT>",
    "fill_token": "<FILL_ME>",
    "middle_token": f"{MARK}<MID>",
    "prefix_token": f"{MARK}<PRE>",
    "suffix_token": f"{MARK}<SUF>",
}
META_TOKENIZER = partial(byte_level, special=LLAMA3, split=LLAMA3_SPLIT, bos=LLAMA3[0])
INFILL_PIECES = [INFILL[f"{name}_token"] for name in ("prefix", "suffix", "middle", "eot")]

FAMILIES = {
    "Llama 2 Chat": Family(
        tokenizer=partial(sentence_pieces, converted=True),
        tokenizer_config=NAMES2 | {"chat_template": INSTRUCTION},
        config=LLAMA2,
        generation={**ENDS2, **SAMPLED, "pad_token_id": 0},
    ),
    "Llama 3.1": Family(
        tokenizer=META_TOKENIZER,
        tokenizer_config=NAMES31,
        config=LLAMA31,
        generation={**ENDS31, **SAMPLED},
        more_rows=8,
    ),
    "Llama 3.2": Family(
        tokenizer=META_TOKENIZER,
        tokenizer_config=NAMES31,
        config=LLAMA31
        | {"head_dim": 16, "rope_scaling": llama3_scaling(32.0), "tie_word_embeddings": True},
        generation={**ENDS31, **SAMPLED},
    ),
    "Llama 3.3": Family(
        tokenizer=META_TOKENIZER,
        tokenizer_config=NAMES31,
        config=LLAMA31 | {"num_key_value_heads": 1},
        generation={**ENDS31, **SAMPLED},
    ),
    "Code Llama": Family(
        tokenizer=partial(sentence_pieces, also=INFILL_PIECES, converted=True),
        tokenizer_config=NAMES2
        | INFILL
        | {"tokenizer_class": "CodeLlamaTokenizer", "legacy": None, "use_fast": True},
        config=LLAMA2 | {"max_position_embeddings": 16384, "rope_theta": 1000000},
        generation=ENDS2,
    ),
    "TinyLlama": Family(
        tokenizer=partial(sentence_pieces, converted=True),
        tokenizer_config=NAMES2
        | {"chat_template": ZEPHYR, "model_max_length": 2048, "pad_token": "</s>"},
        config=LLAMA2 | {"max_position_embeddings": 2048, "num_key_value_heads": 1},
        generation={**ENDS2, "max_length": 2048, "pad_token_id": 0},
    ),
    "Yi": Family(
        tokenizer=partial(sentence_pieces, also=YI[2:], names=YI[:2], space_first=False),
        tokenizer_config=NAMES2
        | {
            "add_bos_token": False,
            "bos_token": YI[0],
            "chat_template": CHATML,
            "eos_token": YI[3],
            "legacy": True,
            "pad_token": "<unk>",
        },
        config=LLAMA2
        | {"bos_token_id": YI[0], "eos_token_id": YI[1], "pad_token_id": 0, "rope_theta": 5e6},
        generation={"bos_token_id": YI[0], "eos_token_id": YI[3], "pad_token_id": 0, **SAMPLED},
    ),
    "SmolLM2": Family(
        tokenizer=partial(byte_level, special=SMOL, split=GPT2_SPLIT),
        tokenizer_config={
            "add_prefix_space": False,
            "additional_special_tokens": list(SMOL[1:3]),
            "bos_token": SMOL[1],
            "chat_template": CHATML,
            "eos_token": SMOL[2],
            "model_max_length": 8192,
            "pad_token": SMOL[2],
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": SMOL[0],
        },
        config=LLAMA
        | {
            "bos_token_id": SMOL[1],
            "eos_token_id": SMOL[2],
            "max_position_embeddings": 8192,
            "num_key_value_heads": 1,
            "pad_token_id": SMOL[2],
            "rope_interleaved": False,
            "rope_theta": 100000,
            "tie_word_embeddings": True,
        },
        generation={"bos_token_id": SMOL[1], "eos_token_id": SMOL[2], "pad_token_id": SMOL[2]},
    ),
    "DeepSeek-R1-Distill-Llama": Family(
        tokenizer=partial(
            byte_level,
            special=DEEPSEEK,
            split=LLAMA3_SPLIT,
            bos=DEEPSEEK[0],
            plain=DEEPSEEK[2:],
        ),
        tokenizer_config=NAMES2
        | {
            "bos_token": DEEPSEEK[0],
            "chat_template": THINKING,
            "eos_token": DEEPSEEK[1],
            "legacy": True,
            "model_max_length": 16384,
            "pad_token": DEEPSEEK[1],
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": None,
        },
        config=LLAMA31 | {"bos_token_id": DEEPSEEK[0], "eos_token_id": DEEPSEEK[1]},
        generation={"bos_token_id": DEEPSEEK[0], "eos_token_id": DEEPSEEK[1], **SAMPLED},
    ),
    "Chinese-LLaMA": Family(
        tokenizer=partial(sentence_pieces, chinese=True),
        tokenizer_config=NAMES2 | {"pad_token": "[PAD]", "sp_model_kwargs": {}},
        config=LLAMA2 | {"pad_token_id": 0},
        generation={**ENDS2, "pad_token_id": 0},
        more_rows=1,
    ),
}


def build(name: str, folder: Path) -> Path:
    """Write a family's folder, in float32, and return it."""
    family = FAMILIES[name]
    folder.mkdir()
    family.tokenizer(folder)
    numbers = _numbers(folder)

    def numbered(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: _number(value, numbers) if key.endswith("_token_id") else value
            for key, value in values.items()
        }

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(numbers) + family.more_rows,
    }
    config = sizes | numbered(family.config)
    config |= {"initializer_range": 0.3, "torch_dtype": "float32"}  # texts that differ
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).save_pretrained(
            folder
        )
    for file, values in (
        ("config.json", config),
        ("generation_config.json", numbered(family.generation)),
        ("tokenizer_config.json", family.tokenizer_config),
    ):
        (folder / file).write_text(json.dumps(values), "utf-8")
    return folder


def _numbers(folder: Path) -> dict[str, int]:
    """Return the ids of all tokens."""
    if (folder / "tokenizer.model").is_file():
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        return {pieces.id_to_piece(place): place for place in range(len(pieces))}
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()


def _number(named: Any, numbers: Mapping[str, int]) -> Any:
    if isinstance(named, list):
        return [numbers[each] for each in named]
    return numbers[named] if isinstance(named, str) else named


def copy_without(folder: Path, out: Path, file: str) -> Path:
    """Return a copy of a folder without one of its files."""
    shutil.copytree(folder, out)
    (out / file).unlink()
    return out
