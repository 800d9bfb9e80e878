"""What a run will take, before it runs: memory by part, seconds of a step, what fits where.

Arithmetic on a model's shape and a run's settings, without torch. ``shapes`` and ``cards`` have the
sizes, ``setting`` is what is asked about, ``memory`` and ``speed`` answer, ``search`` compares
settings, ``host`` counts what the host needs.
"""
