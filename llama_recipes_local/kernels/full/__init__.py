"""Linear layers whose weights are trained, and the MLP made of them, with their own gradients.

``trained_layers`` has the functions, ``trained_products`` their products in half precision or in
fp8, ``chosen_layers`` says which of a model's layers they compute.
"""
