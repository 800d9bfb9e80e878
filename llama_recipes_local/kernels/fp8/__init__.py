"""Products in fp8: twice the rate of bfloat16 on Hopper and later.

``scaled_rows`` has matrices in fp8 and their products, ``turned`` those that a weight's gradient is
made of, ``swiglu_rows`` an MLP's middle in fp8. ``linear`` is a layer that holds a frozen weight in
fp8, ``trained_linear`` one whose weight stays as it is; ``store`` puts both into a model.
"""
