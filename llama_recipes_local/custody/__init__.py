"""Custody: from which files, by which code, a result was made, each with its hash.

Runs write ``custody.json`` beside their result, ``merge`` and ``export`` add a step to it, and
``replay`` compares it with what is there and makes the result again.
"""
