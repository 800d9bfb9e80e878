"""Choices and limits of GGUF for the command line; imports nothing heavy."""

TYPES = ("q8_0", "f16", "bf16", "f32", "q6_k", "q5_k_m", "q4_k_m", "q4_1", "q4_0")
"""How a file stores weights, the default first."""

LORA = "gguf-lora"
"""The format of an adapter by itself."""

DIVERGENCES = {
    "q8_0": 0.006,
    "f16": 0.001,
    "bf16": 0.002,
    "f32": 1e-5,
    "q6_k": 0.025,
    "q5_k_m": 0.2,
    "q4_k_m": 0.2,
    "q4_1": 0.6,
    "q4_0": 0.6,
}
"""How far the next token may be from the model's, in nats a token (Kullback-Leibler divergence).

1.6 to 2.8 times that of a fine-tuned SmolLM2-135M, whose figures ``docs/after-training.md`` has;
larger models have less.
"""
RISES = {
    "q8_0": 0.02,
    "f16": 0.005,
    "bf16": 0.01,
    "f32": 1e-4,
    "q6_k": 0.03,
    "q5_k_m": 0.1,
    "q4_k_m": 0.15,
    "q4_1": 0.25,
    "q4_0": 0.25,
}
"""By which share the perplexity may rise."""
