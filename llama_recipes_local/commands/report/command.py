"""``llama-recipes-local report``: reads the folders of runs and writes the page."""

import argparse
from pathlib import Path

from llama_recipes_local.errors import printable, refusal
from llama_recipes_local.reports.run_files import read_runs
from llama_recipes_local.reports.run_page import PAGE, write_report
from llama_recipes_local.storage.names import refuse_output_file


def report(args: argparse.Namespace) -> None:
    """Write the page and print where it is.

    Raises:
        UsageError: if a folder holds no run, or the page's name cannot be used.
    """
    path = Path(args.out).expanduser() if args.out else args.outputs[0] / PAGE
    runs = read_runs(args.outputs)
    refuse_output_file(path, "--out", PAGE)
    if path.exists() and path.suffix.lower() not in (".html", ".htm"):
        why = "there is such a file, and it is no page"
        raise refusal(f"--out {path}", why, f"name another: --out {PAGE}")
    write_report(runs, path)
    print(printable(str(path)))
