"""Makes the copy of upstream when a wheel is built, so that an installed package is whole.

Hatchling runs this for ``pip install .``, for ``pip install --editable .`` and for a wheel built
from a source archive; a source archive itself is made without the copy. The wheel of upstream comes
through pip, whose configuration and ``PIP_*`` variables hold here too.
"""

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class VendoringBuildHook(BuildHookInterface[Any]):
    """Runs ``python -m llama_recipes_local.vendoring make`` before the wheel's files are listed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the copy if there is none or it is stale."""
        if self.target_name != "wheel":
            return
        # A build backend does not have the project's root on its path.
        sys.path.insert(0, self.root)
        from llama_recipes_local.vendoring.checkout import this_checkout
        from llama_recipes_local.vendoring.errors import VendoringError
        from llama_recipes_local.vendoring.making import make

        try:
            report = make(this_checkout())
        except VendoringError as error:
            # The message says it all; a traceback through the build backend would bury it.
            sys.exit(f"error: {error}")
        finally:
            sys.path.remove(self.root)
        for line in report.lines:
            self.app.display_info(line)
