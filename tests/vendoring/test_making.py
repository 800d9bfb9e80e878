"""The copy is made whole or not at all, and made again only for a reason."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring import swapping
from llama_recipes_local.vendoring.checkout import PACKAGE_DIR, Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock
from llama_recipes_local.vendoring.making import make

pytestmark = pytest.mark.slow

AddPatch = Callable[..., bytes]

WANDB = "llama_recipes/configs/wandb.py"
SAMPLER = "llama_recipes/data/sampler.py"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of the last change of each file."""
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files
    return files


def neighbours(checkout: Checkout) -> set[str]:
    return {path.name for path in checkout.package.iterdir()}


def test_the_copy(
    checkout: Checkout, upstream: dict[str, bytes], lock: Lock, add_patch: AddPatch
) -> None:
    patch = add_patch()
    assert make(checkout).reasons == ("there is no copy yet",)
    made = {path: content for path, (content, _) in snapshot(checkout.vendor).items()}
    record = json.loads(made.pop("manifest.json"))
    assert made == {**upstream, WANDB: upstream[WANDB].replace(b"'llama_recipes'", b"'ours'")}
    assert made["__init__.py"].startswith(b"# ")
    assert made["__init__.py"].count(b"\n") == 1
    assert len(record.pop("tool")) == 64
    assert record == {
        "format": 1,
        "lock": lock.line,
        "wheel": lock.sha256,
        "series": manifests.sha256(checkout.series.read_bytes()),
        "patches": {"0001-wandb.patch": manifests.sha256(patch)},
        "files": {path: manifests.sha256(content) for path, content in made.items()},
    }
    assert neighbours(checkout) == {"_vendor", "_vendor.lock", "_vendor.wheels"}


def test_a_second_run_does_nothing(checkout: Checkout, add_patch: AddPatch, no_pip: None) -> None:
    add_patch()
    make(checkout)
    before = snapshot(checkout.package)
    report = make(checkout)
    assert report.reasons == ()
    assert report.lines == (f"{checkout.vendor} is fresh: nothing to do",)
    assert snapshot(checkout.package) == before


def test_bytecode_does_not_make_it_stale(checkout: Checkout) -> None:
    make(checkout)
    cache = checkout.vendor / "llama_recipes" / "__pycache__"
    cache.mkdir()
    (cache / "finetuning.pyc").write_bytes(b"x")
    assert make(checkout).reasons == ()


def test_two_makes_give_the_same_bytes(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    first = manifests.file_hashes(checkout.vendor), (checkout.vendor / "manifest.json").read_bytes()
    (checkout.vendor / "manifest.json").unlink()
    make(checkout)
    second = (
        manifests.file_hashes(checkout.vendor),
        (checkout.vendor / "manifest.json").read_bytes(),
    )
    assert first == second


def edit_lock(checkout: Checkout) -> None:
    """As if the copy had been made with another lock."""
    path = checkout.vendor / "manifest.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "lock": "llama-recipes==0.0.3"}))


def edit_tool(checkout: Checkout) -> None:
    path = checkout.vendor / "manifest.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "tool": "0" * 64}))


def change_patch(checkout: Checkout) -> None:
    path = checkout.patches / "0001-wandb.patch"
    path.write_bytes(path.read_bytes().replace(b"'ours'", b"'mine'"))


def change_header(checkout: Checkout) -> None:
    path = checkout.patches / "0001-wandb.patch"
    path.write_bytes(path.read_bytes().replace(b"A Developer", b"B Developer"))


def remove_patch(checkout: Checkout) -> None:
    checkout.series.write_text("")


def change_series(checkout: Checkout) -> None:
    checkout.series.write_bytes(b"# a word more\n" + checkout.series.read_bytes())


def change_file(checkout: Checkout) -> None:
    with (checkout.vendor / SAMPLER).open("ab") as file:
        file.write(b" ")


def remove_file(checkout: Checkout) -> None:
    (checkout.vendor / SAMPLER).unlink()


def add_file(checkout: Checkout) -> None:
    (checkout.vendor / "llama_recipes" / "more.py").write_text("")


def remove_manifest(checkout: Checkout) -> None:
    (checkout.vendor / "manifest.json").unlink()


def break_manifest(checkout: Checkout) -> None:
    (checkout.vendor / "manifest.json").write_text("[]")


def age_manifest(checkout: Checkout) -> None:
    path = checkout.vendor / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit_lock, "the lock changed"),
        (edit_tool, "the vendoring code changed"),
        (change_patch, "patch 0001-wandb.patch changed"),
        (change_header, "patch 0001-wandb.patch changed"),
        (remove_patch, "patch 0001-wandb.patch removed"),
        (change_series, "the series changed"),
        (change_file, f"file {SAMPLER} changed"),
        (remove_file, f"file {SAMPLER} missing"),
        (add_file, "file llama_recipes/more.py does not belong to the copy"),
        (remove_manifest, "the copy has no readable manifest"),
        (break_manifest, "the copy has no readable manifest"),
        (age_manifest, "the copy has no readable manifest"),
    ],
)
def test_a_stale_copy_is_made_again_and_says_why(
    change: Callable[[Checkout], None], reason: str, checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    make(checkout)
    change(checkout)
    report = make(checkout)
    assert report.reasons == (reason,)
    assert f"  {reason}" in report.lines
    assert make(checkout).reasons == ()


def test_a_new_patch_makes_it_stale(checkout: Checkout, add_patch: AddPatch) -> None:
    make(checkout)
    add_patch()
    assert make(checkout).reasons == ("patch 0001-wandb.patch added",)
    assert b"'ours'" in (checkout.vendor / WANDB).read_bytes()


def test_the_order_of_patches_matters(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    add_patch("0002-sampler.patch", SAMPLER, b"import random", b"import random as random")
    make(checkout)
    checkout.series.write_bytes(b"0002-sampler.patch\n0001-wandb.patch\n")
    assert make(checkout).reasons == ("the series changed",)


def test_several_reasons_are_all_reported(checkout: Checkout, add_patch: AddPatch) -> None:
    make(checkout)
    add_patch()
    change_file(checkout)
    assert make(checkout).reasons == (
        "patch 0001-wandb.patch added",
        f"file {SAMPLER} changed",
    )


def test_a_file_edited_by_hand_is_kept(checkout: Checkout, add_patch: AddPatch) -> None:
    make(checkout)
    change_file(checkout)
    edited = (checkout.vendor / SAMPLER).read_bytes()
    # A file that the new copy has with the same content is not worth keeping.
    add_patch()
    path = checkout.vendor / WANDB
    path.write_bytes(path.read_bytes().replace(b"'llama_recipes'", b"'ours'", 1))
    lines = make(checkout).lines
    assert lines[-2:] == (f"files edited by hand are kept in {checkout.edited}:", f"  {SAMPLER}")
    assert {path: text for path, (text, _) in snapshot(checkout.edited).items()} == {
        SAMPLER: edited
    }


def test_a_patch_that_does_not_apply_leaves_the_old_copy(
    checkout: Checkout, add_patch: AddPatch
) -> None:
    make(checkout)
    before = snapshot(checkout.package)
    content = add_patch()
    (checkout.patches / "0001-wandb.patch").write_bytes(content.replace(b" @dataclass", b" @data"))
    with pytest.raises(VendoringError, match=r"0001-wandb\.patch does not apply"):
        make(checkout)
    assert snapshot(checkout.package) == before


def test_two_patches_of_one_file_are_refused(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    add_patch("0002-wandb.patch")
    with pytest.raises(VendoringError, match=r"is also changed by 0001-wandb\.patch"):
        make(checkout)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (b"0001-wandb.patch\n0001-wandb.patch\n", "twice"),
        (b"0002-none.patch\n", "missing"),
        (b"0001-wandb.patch -p1\n", "the name of one file"),
        (b"../0001-wandb.patch\n", "the name of one file"),
    ],
)
def test_a_wrong_series_is_refused(
    series: bytes, message: str, checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    checkout.series.write_bytes(series)
    with pytest.raises(VendoringError, match=message):
        make(checkout)


def test_a_checkout_without_a_series_has_no_patches(checkout: Checkout) -> None:
    checkout.series.unlink()
    make(checkout)
    assert manifests.load(checkout.vendor).patches == {}  # type: ignore[union-attr]


def test_a_full_disk_leaves_the_old_copy(
    checkout: Checkout, add_patch: AddPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(checkout)
    before = snapshot(checkout.package)
    add_patch()
    write_bytes = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if path.name == "sampler.py":
            raise OSError("no space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="no space left"):
        make(checkout)
    assert snapshot(checkout.package) == before


def test_a_failing_second_rename_brings_the_old_copy_back(
    checkout: Checkout, add_patch: AddPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(checkout)
    before = snapshot(checkout.package)
    add_patch()
    replace = os.replace

    def rename(source: Path, target: Path) -> None:
        if source == checkout.staging:
            raise OSError("denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(OSError, match="denied"):
        make(checkout)
    assert snapshot(checkout.package) == before


@pytest.mark.parametrize("renamed", [False, True])
def test_after_a_kill_the_next_run_cleans_up(renamed: bool, checkout: Checkout) -> None:
    make(checkout)
    before = snapshot(checkout.vendor)
    (checkout.staging / "llama_recipes").mkdir(parents=True)
    (checkout.staging / "llama_recipes" / "half.py").write_text("")
    if renamed:
        checkout.vendor.rename(checkout.retired)
    with swapping.exclusive(checkout):
        pass
    assert snapshot(checkout.vendor) == before
    assert neighbours(checkout) == {"_vendor", "_vendor.lock", "_vendor.wheels"}
    assert make(checkout).reasons == ()


def test_after_a_kill_between_the_renames_make_finds_the_old_copy(checkout: Checkout) -> None:
    make(checkout)
    checkout.vendor.rename(checkout.retired)
    assert make(checkout).reasons == ()
    assert not checkout.retired.exists()


@pytest.mark.command
def test_killed_while_writing(checkout: Checkout, add_patch: AddPatch) -> None:
    """A real process, ended by the system's hardest signal in the middle of its work."""
    make(checkout)
    before = snapshot(checkout.vendor)
    add_patch()
    program = f"""
import os, signal
from pathlib import Path
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.making import make
write_bytes = Path.write_bytes
def write(path, content):
    if path.name == "sampler.py":
        os.kill(os.getpid(), signal.SIGKILL)
    return write_bytes(path, content)
Path.write_bytes = write
make(Checkout(Path({str(checkout.root)!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PACKAGE_DIR.parent)
    assert done.returncode == -9
    assert checkout.staging.exists()
    assert snapshot(checkout.vendor) == before
    assert make(checkout).reasons == ("patch 0001-wandb.patch added",)
    assert neighbours(checkout) == {"_vendor", "_vendor.lock", "_vendor.wheels"}


@pytest.mark.command
def test_two_processes_at_once_make_one_copy(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    program = f"""
from pathlib import Path
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.making import make
print(make(Checkout(Path({str(checkout.root)!r}))).lines[0])
"""
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, cwd=PACKAGE_DIR.parent, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert sum(line.startswith("made ") for line in said) == 1
    assert sum(line.endswith("is fresh: nothing to do\n") for line in said) == 3
    assert make(checkout).reasons == ()
    assert neighbours(checkout) == {"_vendor", "_vendor.lock", "_vendor.wheels"}


def test_a_fresh_copy_needs_no_writing(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    make(checkout)

    def refuse(checkout: Checkout) -> None:
        raise AssertionError("the lock file was opened")

    monkeypatch.setattr("llama_recipes_local.vendoring.making.exclusive", refuse)
    assert make(checkout).reasons == ()


def test_a_patchs_header_does_not_change_the_copy(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    before = manifests.file_hashes(checkout.vendor)
    change_header(checkout)
    make(checkout)
    assert manifests.file_hashes(checkout.vendor) == before
