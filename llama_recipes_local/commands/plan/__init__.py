"""``plan``: what a run will take, which settings fit, and which of them is the fastest."""
