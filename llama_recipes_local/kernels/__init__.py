"""Computations that differ from transformers' own, for speed or for an adapter.

``registry`` lists the kernels that flags choose. ``prefix`` and ``adapter_prompts`` belong to
adapter methods; ``attention`` computes them.
"""

DOCUMENTS = "documents"
"""The attention of ``attention``, as ``--attn_implementation`` and transformers name it."""
