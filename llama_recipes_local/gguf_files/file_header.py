"""The keys and values of a GGUF file that an export writes."""

from typing import TYPE_CHECKING, Any

from llama_recipes_local.gguf_files import metadata as keys
from llama_recipes_local.gguf_files.shape import PER_TURN, YARN, Shape
from llama_recipes_local.gguf_files.tensor_types import FileType
from llama_recipes_local.gguf_files.vocabulary import BYTE_LEVEL, Vocabulary

if TYPE_CHECKING:
    from gguf import GGUFValueType


def header(shape: Shape, known: Vocabulary, file: FileType, name: str) -> dict[str, Any]:
    """Return the file's values by key, except the architecture.

    Args:
        shape: the model's sizes.
        known: the tokenizer.
        file: the file's type.
        name: the model's name.
    """
    return {
        "general.type": "model",
        "general.name": name,
        "general.file_type": file.number,
        "general.quantization_version": 2,
        **_sizes(shape),
        **_tokenizer(known),
    }


def _sizes(shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {key: getattr(shape, name) for name, key in keys.SIZES.items()}
    found[keys.KEYS_AND_VALUES] = shape.key_value_heads
    found |= dict.fromkeys(keys.HEAD_SIZES, shape.head)
    found[keys.ROWS] = shape.vocabulary
    found[keys.EPSILON] = shape.rms_norm_eps
    found[keys.THETA] = shape.rope_theta
    kind = shape.scaling.get("rope_type")
    if kind in (PER_TURN, YARN):
        found[keys.SCALING] = kind
        found[keys.SCALING_FACTOR] = float(shape.scaling["factor"])
    if kind == YARN:
        found[keys.FIRST_CONTEXT] = shape.scaling["original_max_position_embeddings"]
    return found


def _tokenizer(known: Vocabulary) -> dict[str, Any]:
    found: dict[str, Any] = {
        keys.MODEL: known.model,
        keys.SPLIT: known.splitting,
        keys.TOKENS: list(known.tokens),
        keys.KINDS: list(known.kinds),
    }
    if known.model == BYTE_LEVEL:
        found[keys.MERGES] = [" ".join(pair) for pair in known.merges]
    else:
        found[keys.SCORES] = list(known.scores)
    found |= {keys.IDS[name]: number for name, number in known.ids().items()}
    found[keys.ADD_BEGIN] = known.add_begin
    found[keys.ADD_END] = known.add_end
    found[keys.SPACE_PREFIX] = known.space_prefix
    if known.chat_template is not None:
        found[keys.CHAT_TEMPLATE] = known.chat_template
    if known.further_templates:
        found[keys.CHAT_TEMPLATES] = list(known.further_templates)
        found |= {f"{keys.FURTHER}{name}": text for name, text in known.further_templates.items()}
    return found


def value_type(value: Any) -> "GGUFValueType":
    """Return the type that a value has in a file."""
    from gguf import GGUFValueType

    types = {
        bool: GGUFValueType.BOOL,
        int: GGUFValueType.UINT32,
        float: GGUFValueType.FLOAT32,
        str: GGUFValueType.STRING,
        list: GGUFValueType.ARRAY,
    }
    return types[type(value)]
