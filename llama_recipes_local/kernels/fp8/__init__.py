"""Frozen weights in fp8, multiplied in fp8: twice the rate of bfloat16 on Hopper and later.

``values`` has matrices in fp8 and their products, ``linear`` the layer that holds one, ``store``
puts such layers into a model.
"""
