"""Products in fp8: twice the rate of bfloat16 on Hopper and later.

``scaled_rows`` has matrices in fp8 and their products, ``turned`` the transposed ones for a
weight's gradient, ``swiglu_rows`` the middle of an MLP in fp8. ``linear`` is a layer that stores a
frozen weight in fp8, ``trained_linear`` one that keeps its weight as it is and multiplies in fp8.
``store`` installs both in a model.
"""
