"""Random orders that follow from their seeds, today and after an upgrade.

numpy freezes the stream of its legacy generator and of no other, and torch freezes none. A run that
is resumed with newer packages must find its rows in the order that they had.
"""

import numpy as np


def generator(*seeds: int) -> np.random.RandomState:
    """Return a generator that follows from the seeds, each taken modulo 2**32."""
    return np.random.RandomState([seed % 2**32 for seed in seeds])
