"""``docs/architecture.md`` is true: its tables are those that the code makes."""

import re
import shutil
from pathlib import Path

import library_patches_table
import pytest

from llama_recipes_local.library_patches import PATCHES
from llama_recipes_local.vendoring.__main__ import main
from llama_recipes_local.vendoring.checkout import Checkout, this_checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.seams import HEADS, PAGE, markdown_table, read_seams, write_table


def between_marks(name: str, page: str = PAGE) -> str:
    text = (this_checkout().root / page).read_text("utf-8")
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    return table


@pytest.mark.parametrize("page", HEADS)
def test_the_table_of_seams_is_up_to_date(page: str) -> None:
    table = markdown_table(read_seams(this_checkout().package), page)
    assert table.count("\n| ") > 30
    assert between_marks("seams", page) == table, "refresh it: make seams-table"


@pytest.mark.parametrize("page", HEADS)
def test_the_table_of_runtime_patches_is_up_to_date(page: str) -> None:
    table = library_patches_table.make_table(Path(page).name)
    assert table.count("\n| ") == len(PATCHES) + 1
    assert between_marks("patches", page) == table, "refresh it: make patches-table"


@pytest.mark.parametrize("name", ["layers", "active run"])
def test_both_languages_list_the_same_rooms(name: str) -> None:
    english, chinese = (
        [line.split("|")[1] for line in between_marks(name, page).splitlines() if "`" in line]
        for page in HEADS
    )
    assert chinese == english and len(english) > 5


def test_only_those_listed_ask_for_the_active_run() -> None:
    package = this_checkout().package
    asking = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "_vendor" not in path.parts and "active_run()" in path.read_text("utf-8")
    }
    listed = re.findall(r"^\| `(\S+)` \|", between_marks("active run"), re.MULTILINE)
    assert asking - {"run/__init__.py"} == set(listed)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout with this package, its copy and a page without a table."""
    checkout = Checkout(tmp_path)
    ignored = shutil.ignore_patterns("_vendor.*", "__pycache__")
    shutil.copytree(this_checkout().package, checkout.package, ignore=ignored)
    (tmp_path / PAGE).parent.mkdir()
    for page in HEADS:
        (tmp_path / page).write_text(
            "# A page\n\n<!-- seams -->\nold\n<!-- /seams -->\nrest\n", "utf-8"
        )
    return checkout


def test_writing_replaces_what_is_between_the_marks(checkout: Checkout) -> None:
    assert write_table(checkout)
    for page in HEADS:
        text = (checkout.root / page).read_text("utf-8")
        table = markdown_table(read_seams(checkout.package), page)
        assert text == f"# A page\n\n<!-- seams -->\n{table}<!-- /seams -->\nrest\n"
    assert not write_table(checkout)


def test_a_page_without_the_marks_is_left_as_it_is(checkout: Checkout) -> None:
    page = checkout.root / PAGE
    page.write_text("# A page\n", "utf-8")
    with pytest.raises(VendoringError, match="must have <!-- seams -->"):
        write_table(checkout)
    assert page.read_text("utf-8") == "# A page\n"


def test_a_collaborator_that_is_gone_is_an_error(checkout: Checkout) -> None:
    path = checkout.package / "parallel" / "sharding.py"
    text = path.read_text("utf-8")
    assert "def FullyShardedDataParallel(" in text
    path.write_text(text.replace("def FullyShardedDataParallel(", "def Sharded("), "utf-8")
    with pytest.raises(VendoringError, match=r"sharding\.py does not define FullyShardedData"):
        read_seams(checkout.package)


def test_the_command_lists_the_seams_in_mains_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seams"]) == 0
    printed = capsys.readouterr().out
    calls = ["TRAIN_CONFIG()", "setup()", "model = FSDP(", "ConcatDataset(", "results = train("]
    places = [printed.index(call) for call in calls]
    assert places == sorted(places)
    assert "parallel/sharding.py:" in printed and "torch.optim.lr_scheduler.StepLR" in printed
