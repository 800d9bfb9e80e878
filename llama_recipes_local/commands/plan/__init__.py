"""Says before a run what it will take, which settings fit, and which of them is the fastest."""
