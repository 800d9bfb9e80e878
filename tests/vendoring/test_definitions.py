"""Where a name is defined: through re-exports, fallbacks to upstream and inherited methods."""

from pathlib import Path

import pytest

from llama_recipes_local.vendoring.definitions import Definition, Definitions
from llama_recipes_local.vendoring.errors import VendoringError

FILES = {
    "rooms/__init__.py": """\
        from llama_recipes_local.rooms.door import open_door as door
        from os.path import join
        __getattr__ = fall_back("rooms")
        """,
    "rooms/door.py": '''\
        def open_door():
            """Open it,
            slowly.

            Nothing else.
            """
        ''',
    "rooms/classes.py": '''\
        from torch.nn import Module
        from llama_recipes_local.rooms.base import Base

        class Room(Base):
            """A room."""

            def own(self):
                """Ours."""

        class Layer(Module):
            """A layer."""
        ''',
    "rooms/base.py": """\
        class Base:
            def inherited(self): pass
        """,
    "rooms/typed.py": """\
        if TYPE_CHECKING:
            from llama_recipes_local.rooms.base import Base as theirs
        else:
            theirs = load("rooms").theirs
        SIZE = 3
        """,
    "_vendor/llama_recipes/rooms.py": "def rest(): pass\n\nclass theirs: pass\n",
}


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    package = tmp_path / "llama_recipes_local"
    for name, text in FILES.items():
        lines = text.splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[indent:] for line in lines) + "\n", "utf-8")
    return Definitions(package)


@pytest.mark.parametrize(
    ("module", "name", "place"),
    [
        ("rooms", "door", "rooms/door.py:1 open_door"),
        ("rooms.classes", "Room", "rooms/classes.py:4 Room"),
        ("rooms.classes", "Room.own", "rooms/classes.py:7 Room.own"),
        ("rooms.classes", "Room.inherited", "rooms/base.py:2 Base.inherited"),
        ("rooms.classes", "Layer.forward", "rooms/classes.py:10 Layer"),
        ("rooms", "rest", "_vendor/llama_recipes/rooms.py:1 rest"),
        ("rooms.typed", "theirs", "_vendor/llama_recipes/rooms.py:3 theirs"),
        ("rooms.typed", "SIZE", "rooms/typed.py:5 SIZE"),
    ],
)
def test_a_name_is_followed_to_its_definition(
    definitions: Definitions, module: str, name: str, place: str
) -> None:
    found = definitions.find(f"llama_recipes_local.{module}", name)
    assert f"{found.path}:{found.line} {found.name}" == place


def test_the_first_paragraph_of_a_docstring_becomes_one_line(definitions: Definitions) -> None:
    assert definitions.find("llama_recipes_local.rooms", "door").summary == "Open it, slowly."


def test_a_library_has_no_file(definitions: Definitions) -> None:
    found = definitions.find("llama_recipes_local.rooms", "join")
    assert found == Definition("os.path", "join")


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("rooms.door", "window", r"rooms/door\.py does not define window"),
        ("rooms", "window", r"_vendor/llama_recipes/rooms\.py does not define window"),
        ("cellar", "door", "there is no module llama_recipes_local.cellar"),
    ],
)
def test_a_name_that_is_not_defined_is_an_error(
    definitions: Definitions, module: str, name: str, message: str
) -> None:
    with pytest.raises(VendoringError, match=message):
        definitions.find(f"llama_recipes_local.{module}", name)
