"""The lock is one pinned requirement with one hash, and nothing else."""

from pathlib import Path

import pytest

from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock, read_lock

HASH = "924ea2b6d9d2b4cef6d9d767f2ecbe59d75623bf2c9904b51e007ebab80e0de9"
LINE = f"llama-recipes==0.0.4.post1 --hash=sha256:{HASH}"


def test_the_projects_lock(project: Checkout) -> None:
    lock = read_lock(project.lock)
    assert lock == Lock(LINE, "llama-recipes", "0.0.4.post1", HASH)
    assert lock.dist_info == "llama_recipes-0.0.4.post1.dist-info"


def test_comments_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "upstream.txt"
    path.write_text(f"# why\n\n  {LINE}  \n")
    assert read_lock(path).line == LINE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        f"{LINE}\n{LINE}\n",
        "llama-recipes==0.0.4.post1\n",
        LINE.replace("==", ">="),
        LINE.replace("==0.0.4.post1", ""),
        LINE[:-1],
        LINE.replace("sha256", "md5"),
        f"{LINE} --hash=sha256:{HASH}",
        f"--index-url=x\n{LINE}",
    ],
)
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "upstream.txt"
    path.write_text(text)
    with pytest.raises(VendoringError, match="must hold one requirement") as caught:
        read_lock(path)
    assert str(path) in str(caught.value)
