"""``prepare stand-in``: a small Llama trained offline, to try everything without a model.

It is not a useful language model. ``command`` decides whether it has to be made; ``tokenizer`` and
``pretraining`` are the steps.
"""
