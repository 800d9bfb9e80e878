"""Makes the copy of upstream, or finds that the one in place is fresh."""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_recipes_local.vendoring.building import build_copy, build_upstream, read_inputs
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.freshness import stale_reasons
from llama_recipes_local.vendoring.swapping import exclusive, put_in_place


@dataclass(frozen=True)
class MakeReport:
    """What ``make`` did.

    Attributes:
        reasons: why the copy was rebuilt; empty if it was fresh and nothing was done.
        lines: the same for the reader, one or more lines.
    """

    reasons: tuple[str, ...]
    lines: tuple[str, ...]


def make(checkout: Checkout, pip_arguments: Sequence[str] = ()) -> MakeReport:
    """Make the copy if there is none or it is stale.

    Args:
        checkout: the source tree whose copy to make.
        pip_arguments: further arguments for ``pip download``, such as ``--find-links``.

    Raises:
        VendoringError: if the wheel cannot be fetched or is not the locked one, or a patch does not
            apply; the copy in place, if any, is left as it was.
    """
    inputs = read_inputs(checkout)
    # First without the lock, so that a fresh copy in a read-only checkout is not an error.
    if not stale_reasons(checkout, inputs):
        return _fresh(checkout)
    with exclusive(checkout):
        reasons = stale_reasons(checkout, inputs)
        if not reasons:
            return _fresh(checkout)
        files = build_copy(build_upstream(checkout, inputs.lock, pip_arguments), inputs)
        kept = put_in_place(checkout, files)
    lines = [
        f"made {checkout.vendor} from {inputs.lock.name} {inputs.lock.version}, "
        f"patches: {len(inputs.patches)}; because:",
        *(f"  {reason}" for reason in reasons),
    ]
    if kept:
        lines.append(f"files edited by hand are kept in {checkout.edited}:")
        lines += (f"  {path}" for path in kept)
    return MakeReport(tuple(reasons), tuple(lines))


def _fresh(checkout: Checkout) -> MakeReport:
    return MakeReport((), (f"{checkout.vendor} is fresh: nothing to do",))
