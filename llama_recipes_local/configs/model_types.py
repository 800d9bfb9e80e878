"""The model types that can be trained, as named by ``model_type`` in ``config.json``."""

LLAMA = "llama"
VISION = "mllama"
