"""``refresh`` writes what was edited in the copy into a patch, always with the same bytes."""

import json
import shutil
from collections.abc import Callable

import pytest

from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.making import make
from llama_recipes_local.vendoring.patching import parse_patch
from llama_recipes_local.vendoring.refreshing import refresh

pytestmark = pytest.mark.slow

AddPatch = Callable[..., bytes]

NAME = "0001-wandb.patch"
WANDB = "llama_recipes/configs/wandb.py"
SAMPLER = "llama_recipes/data/sampler.py"


def edit(checkout: Checkout, path: str, old: bytes, new: bytes) -> None:
    file = checkout.vendor / path
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


def patch_bytes(checkout: Checkout, name: str = NAME) -> bytes:
    return (checkout.patches / name).read_bytes()


def is_fresh(checkout: Checkout) -> bool:
    return not make(checkout).reasons


def test_an_unedited_copy_gives_the_same_patch(checkout: Checkout, add_patch: AddPatch) -> None:
    before = add_patch()
    make(checkout)
    assert not refresh(checkout, NAME).changed
    assert patch_bytes(checkout) == before
    assert is_fresh(checkout)


def test_an_edit_goes_into_the_patch(checkout: Checkout, add_patch: AddPatch) -> None:
    before = add_patch()
    make(checkout)
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    assert refresh(checkout, NAME).changed
    after = patch_bytes(checkout)
    assert after == before.replace(b"'ours'", b"'mine'")
    assert is_fresh(checkout)
    assert not refresh(checkout, NAME).changed
    assert patch_bytes(checkout) == after


def test_round_trip(checkout: Checkout, add_patch: AddPatch) -> None:
    """A copy made again from the refreshed patch is the edited copy, manifest included."""
    add_patch()
    make(checkout)
    edit(checkout, WANDB, b"'ours'", b"'mine'  ")
    edit(checkout, WANDB, b"notes", b"notes_of_a_run")
    edited = (checkout.vendor / WANDB).read_bytes()
    refresh(checkout, NAME)
    record = (checkout.vendor / "manifest.json").read_bytes()
    shutil.rmtree(checkout.vendor)
    make(checkout)
    assert (checkout.vendor / WANDB).read_bytes() == edited
    assert (checkout.vendor / "manifest.json").read_bytes() == record


def test_a_new_patch(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    refresh(checkout, "0002-new.patch", [SAMPLER])
    content = patch_bytes(checkout, "0002-new.patch")
    patch = parse_patch("0002-new.patch", content)
    assert list(patch.targets) == [SAMPLER]
    assert patch.header.startswith(b"Description: <") and patch.header.endswith(b">\n\n")
    assert checkout.series.read_bytes().endswith(b"0001-wandb.patch\n0002-new.patch\n")
    assert is_fresh(checkout)
    assert not refresh(checkout, "0002-new.patch").changed
    record = (checkout.vendor / "manifest.json").read_bytes()
    shutil.rmtree(checkout.vendor)
    make(checkout)
    assert (checkout.vendor / "manifest.json").read_bytes() == record


def test_a_new_patch_where_there_is_no_series(checkout: Checkout) -> None:
    checkout.series.unlink()
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    refresh(checkout, NAME, [SAMPLER])
    assert checkout.series.read_bytes() == b"0001-wandb.patch\n"
    assert is_fresh(checkout)


def test_a_series_whose_last_line_has_no_end(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    checkout.series.write_bytes(checkout.series.read_bytes().rstrip(b"\n"))
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    refresh(checkout, "0002-new.patch", [SAMPLER])
    assert checkout.series.read_bytes().endswith(b"\n0001-wandb.patch\n0002-new.patch\n")


def test_a_patch_can_get_another_file(checkout: Checkout, add_patch: AddPatch) -> None:
    before = add_patch()
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    refresh(checkout, NAME, [SAMPLER])
    assert patch_bytes(checkout).startswith(before)
    assert list(parse_patch(NAME, patch_bytes(checkout)).targets) == [WANDB, SAMPLER]
    assert is_fresh(checkout)


def test_a_file_that_is_upstreams_again_leaves_the_patch(
    checkout: Checkout, upstream: dict[str, bytes], add_patch: AddPatch
) -> None:
    before = add_patch()
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    refresh(checkout, NAME, [SAMPLER])
    (checkout.vendor / SAMPLER).write_bytes(upstream[SAMPLER])
    refresh(checkout, NAME)
    assert patch_bytes(checkout) == before
    assert is_fresh(checkout)


def test_edits_for_two_patches_are_refreshed_one_after_the_other(
    checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    add_patch("0002-sampler.patch", SAMPLER, b"import random", b"import random as r")
    make(checkout)
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    edit(checkout, SAMPLER, b"as r\n", b"as rnd\n")
    refresh(checkout, NAME)
    assert b"'mine'" in patch_bytes(checkout)
    assert b"as rnd" in (checkout.vendor / SAMPLER).read_bytes()
    refresh(checkout, "0002-sampler.patch")
    assert is_fresh(checkout)


def test_an_edit_of_another_file_stays_a_reason(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    edit(checkout, SAMPLER, b"import random", b"import random as r")
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    refresh(checkout, NAME)
    assert make(checkout).reasons == (f"file {SAMPLER} changed",)


def test_a_series_that_changed_before_stays_a_reason(
    checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    make(checkout)
    checkout.series.write_bytes(b"# more\n" + checkout.series.read_bytes())
    refresh(checkout, NAME)
    assert make(checkout).reasons == ("the series changed",)


def test_a_header_edited_by_hand_is_kept(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    make(checkout)
    header = content.replace(b"2026-01-31", b"2026-02-28")
    (checkout.patches / NAME).write_bytes(header)
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    refresh(checkout, NAME)
    assert patch_bytes(checkout) == header.replace(b"'ours'", b"'mine'")
    assert is_fresh(checkout)


def test_hunks_edited_by_hand_are_not_lost(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    make(checkout)
    by_hand = content.replace(b"'ours'", b"'mine'")
    (checkout.patches / NAME).write_bytes(by_hand)
    with pytest.raises(VendoringError, match="would lose that change"):
        refresh(checkout, NAME)
    assert patch_bytes(checkout) == by_hand


def test_refresh_continues_after_a_kill_before_the_manifest(
    checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    make(checkout)
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    record = (checkout.vendor / "manifest.json").read_bytes()
    refresh(checkout, NAME)
    (checkout.vendor / "manifest.json").write_bytes(record)
    refresh(checkout, NAME)
    assert is_fresh(checkout)


def test_a_file_of_another_patch_is_refused(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    edit(checkout, WANDB, b"'ours'", b"'mine'")
    with pytest.raises(VendoringError, match=r"refresh 0001-wandb\.patch instead"):
        refresh(checkout, "0002-new.patch", [WANDB])
    assert not (checkout.patches / "0002-new.patch").exists()


def test_nothing_to_patch_is_refused(
    checkout: Checkout, upstream: dict[str, bytes], add_patch: AddPatch
) -> None:
    before = add_patch()
    make(checkout)
    with pytest.raises(VendoringError, match=r"0002-new\.patch would be empty"):
        refresh(checkout, "0002-new.patch", [SAMPLER])
    (checkout.vendor / WANDB).write_bytes(upstream[WANDB])
    with pytest.raises(VendoringError, match="to drop the patch, delete it"):
        refresh(checkout, NAME)
    assert patch_bytes(checkout) == before


@pytest.mark.parametrize("name", ["new", "../new.patch", "a/new.patch", "-p.patch", ""])
def test_a_name_that_is_not_a_patchs_is_refused(name: str, checkout: Checkout) -> None:
    make(checkout)
    with pytest.raises(VendoringError, match="is not the name of a patch"):
        refresh(checkout, name, [SAMPLER])


def test_a_new_patch_needs_a_file(checkout: Checkout) -> None:
    make(checkout)
    with pytest.raises(VendoringError, match="--file FILE"):
        refresh(checkout, NAME)


@pytest.mark.parametrize("path", ["llama_recipes/none.py", "../x.py", "manifest.json"])
def test_a_file_that_upstream_does_not_have_is_refused(path: str, checkout: Checkout) -> None:
    make(checkout)
    with pytest.raises(VendoringError, match="is not a file of the copy"):
        refresh(checkout, NAME, [path])


def test_a_deleted_file_is_refused(checkout: Checkout) -> None:
    make(checkout)
    (checkout.vendor / SAMPLER).unlink()
    with pytest.raises(VendoringError, match="cannot delete"):
        refresh(checkout, NAME, [SAMPLER])


def test_a_patch_that_is_not_listed_is_refused(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    checkout.series.write_bytes(b"")
    make(checkout)
    with pytest.raises(VendoringError, match="the series does not list it"):
        refresh(checkout, NAME, [WANDB])


def test_without_a_copy_it_is_refused(checkout: Checkout) -> None:
    with pytest.raises(VendoringError, match="there is no copy to take edits from"):
        refresh(checkout, NAME, [SAMPLER])


@pytest.mark.parametrize("field", ["lock", "tool"])
def test_a_copy_from_another_lock_or_code_is_refused(field: str, checkout: Checkout) -> None:
    make(checkout)
    path = checkout.vendor / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: "other"}))
    with pytest.raises(VendoringError, match="another lock or other vendoring code"):
        refresh(checkout, NAME, [SAMPLER])
