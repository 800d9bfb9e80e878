"""The command line of ``make bundle``: ``python -m llama_recipes_local.bundling TARGET``."""

import argparse
import sys
import time
from pathlib import Path

from llama_recipes_local.bundling.bundle_making import make_bundle
from llama_recipes_local.bundling.targets import read_target
from llama_recipes_local.console import report_failure
from llama_recipes_local.vendoring.checkout import this_checkout


def main() -> int:
    """Make a bundle; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llama_recipes_local.bundling")
    parser.add_argument("target", help="such as cu128-py312 or cpu-py311")
    parser.add_argument("--out", metavar="DIR", help="the folder (bundles/TARGET)")
    parser.add_argument(
        "--torch",
        default="",
        metavar="URL|DIR|pip",
        help="the index, or a folder of wheels, that torch is taken from; pip: the package index, "
        "as all else (torch's own index)",
    )
    options = parser.parse_args()
    started = time.monotonic()
    try:
        target = read_target(options.target)
        out = Path(options.out or f"bundles/{target.name}").absolute()
        make_bundle(this_checkout(), target, out, options.torch)
    except Exception as error:
        code = report_failure(error)
        if code is None:
            raise
        return code
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"--> made {out}: {size / 1e9:.2f} GB in {time.monotonic() - started:.0f} s")
    print(f"    without a network: sh {out.name}/install DIR")
    return 0


if __name__ == "__main__":
    sys.exit(main())
