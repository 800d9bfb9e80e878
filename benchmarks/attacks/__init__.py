"""Attacks on runs, a module a kind; ``faults.py`` makes them and counts what held."""
