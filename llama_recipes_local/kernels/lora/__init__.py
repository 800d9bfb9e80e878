"""Frozen linear layers with LoRA, and the MLP made of them, with gradients of their own.

``projections`` has the functions, ``layers`` tells which of a model's layers they compute, ``thin``
has the products with LoRA's thin matrices, ``dropout`` the masks.
"""
