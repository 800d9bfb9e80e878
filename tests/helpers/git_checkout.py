"""Marks of tests that ask git: the source of a bundle or an archive came without a checkout."""

import shutil

import pytest

from llama_recipes_local.vendoring.checkout import this_checkout

HAS_GIT = shutil.which("git") is not None

needs_git = pytest.mark.skipif(not HAS_GIT, reason="the program git is missing")
needs_checkout = pytest.mark.skipif(
    not HAS_GIT or not (this_checkout().root / ".git").exists(),
    reason="the source tree is not a git checkout",
)
