"""Triton's side of the kernels: on the device, each reads and writes its tensors once.

A module here belongs to the one that it is named after, which says what is computed, with its
shapes, and computes it with torch where there is no CUDA. Triton needs neither types nor small
argument names, and compiles a function for each set of its upper-case arguments.
"""
