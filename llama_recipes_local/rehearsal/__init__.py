"""``--rehearse``: the user's own command, whole, on a model of two layers on the CPU."""
