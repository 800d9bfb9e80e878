"""Runs cells in a Jupyter kernel of this environment, and returns what each of them showed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.util import run_sync


class AttendedClient(NotebookClient):
    """Executes as if someone was at the notebook, who could be asked for input."""

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        client.allow_stdin = True
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)


class Shown(NamedTuple):
    """What a cell showed: its streams' text, its error's name, and its values, by kind."""

    text: str
    error: str
    values: dict[str, str]


def run_cells(cells: Sequence[str], folder: object, environment: dict[str, str]) -> list[Shown]:
    """Run cells one after another, also after an error."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    client = AttendedClient(
        notebook, allow_errors=True, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    return [_shown(cell.outputs) for cell in notebook.cells]


def _shown(outputs: Sequence[Any]) -> Shown:
    text = "".join(each.text for each in outputs if each.output_type == "stream")
    values: dict[str, str] = {}
    error = ""
    for each in outputs:
        values |= dict(each.get("data", {}))
        if each.output_type == "error":
            error, text = each.ename, text + "\n".join(each.traceback)
    return Shown(text, error, values)
