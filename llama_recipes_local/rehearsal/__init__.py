"""``--rehearse``: runs the user's whole command on a model of two layers on the CPU."""
