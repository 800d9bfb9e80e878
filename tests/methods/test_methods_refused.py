"""What the table calls impossible is refused before anything is loaded, for the stated reason."""

from typing import Any

import pytest
from methods import REFUSED, Cell

from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight import preflight

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize("cell", REFUSED, ids=str)
def test_what_cannot_be_is_refused(
    cell: Cell, common: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items() if cell.is_spread else ():
        monkeypatch.setenv(name, value)
    flags = common | cell.flags | {"enable_fsdp": cell.is_spread}
    with pytest.raises(UsageError) as raised:
        preflight((), flags)
    assert raised.value.problems[0].what == cell.refused
