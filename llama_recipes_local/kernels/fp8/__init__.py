"""Frozen weights in fp8, multiplied in fp8: twice the rate of bfloat16 on Hopper and later.

``scaled_rows`` has matrices in fp8 and their products, ``swiglu_rows`` an MLP's middle in fp8,
``linear`` the layer that holds a weight, ``store`` puts such layers into a model.
"""
