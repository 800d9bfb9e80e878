"""Linear layers with trained weights, and the MLP made of them, with gradients of their own.

``trained_layers`` has the functions, ``trained_products`` their products in half precision or fp8,
and ``chosen_layers`` tells which of a model's layers they compute.
"""
