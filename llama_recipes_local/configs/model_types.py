"""The types of models that are trained, as ``model_type`` of ``config.json`` has them."""

LLAMA = "llama"
VISION = "mllama"
