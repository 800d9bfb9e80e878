"""The stand-in: a small Llama made here, offline, so that everything can be tried without a model.

It is no language model to use. ``making`` decides whether to make it and puts it in place;
``tokenizer`` and ``pretraining`` are the steps.
"""
