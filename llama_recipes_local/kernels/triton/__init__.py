"""The Triton side of the kernels, in which each tensor is read and written once.

A module here is named after the module that calls it, which documents what is computed and the
shapes, and computes it with torch where there is no CUDA. Triton functions have no types, and are
compiled for each combination of their upper-case arguments.
"""
