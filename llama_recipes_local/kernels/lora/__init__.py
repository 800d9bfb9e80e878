"""Frozen linear layers with LoRA, and the MLP made of them, as functions with their own gradients.

``projections`` has the functions, ``layers`` says which of a model's layers they compute, ``thin``
the products with LoRA's thin matrices, ``dropout`` the masks.
"""
