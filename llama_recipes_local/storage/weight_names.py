"""Names of a model's weight files in the Hugging Face layout."""

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
