"""How each format of ``export`` stores weights, for its flags; nothing heavy is imported."""

from llama_recipes_local.gguf_files import gguf_choices

TYPES: dict[str, tuple[str, ...]] = {
    "gguf": gguf_choices.TYPES,
    gguf_choices.LORA: (),
    "safetensors": (),
    "gptq": ("4bit", "8bit"),
    "fp8": ("channel", "tensor", "block"),
}
"""The types of a format, its default first; none where it has one way."""
