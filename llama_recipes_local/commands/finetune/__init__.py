"""``llama-recipes-local finetune``: the same ``main`` as ``finetuning.py``."""
