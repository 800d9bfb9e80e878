"""Words of the command line about GGUF; nothing heavy is imported for them."""

TYPES = ("q8_0", "f16", "bf16", "f32", "q6_k", "q5_k_m", "q4_k_m", "q4_1", "q4_0")
"""How a file stores weights, the default first."""

LORA = "gguf-lora"
"""The format of an adapter by itself."""
