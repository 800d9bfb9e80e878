"""What is computed in another way than transformers does, for speed or for an adapter.

``registry`` lists the kernels that flags choose. ``prefix`` and ``adapter_prompts`` belong to
adapter methods, and are computed by ``attention``.
"""

DOCUMENTS = "documents"
"""The attention of ``attention``, as ``--attn_implementation`` and transformers name it."""
