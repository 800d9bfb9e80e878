"""Custody: which files and which code a result was made from, each with its hash.

A run writes ``custody.json`` next to its result; ``merge`` and ``export`` add a step to it;
``replay`` compares it with the present files and reproduces the result.
"""
