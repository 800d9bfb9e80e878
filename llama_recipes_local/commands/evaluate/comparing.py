"""Compares two results on the items that both measured."""

from pathlib import Path

from llama_recipes_local.answers.measures import Measure
from llama_recipes_local.commands.evaluate.bootstrap import Difference, difference
from llama_recipes_local.commands.evaluate.results import read_result, table
from llama_recipes_local.errors import Problem, UsageError


def compare(first: Path, second: Path) -> dict[str, Difference]:
    """Print and return how the second result differs from the first, metric by metric.

    Raises:
        UsageError: if a file is not a result, or the two are not of the same items.
    """
    results = read_result(first), read_result(second)
    ours, theirs = ({each.name: each for each in result.measures()} for result in results)
    shared = [name for name in ours if name in theirs]
    if not shared:
        why = f"one has {', '.join(ours)}, the other {', '.join(theirs)}"
        raise UsageError([_different(first, second, why)])
    found: dict[str, Difference] = {}
    rows: list[list[str]] = []
    for name in shared:
        a, b = ours[name], theirs[name]
        if set(a.keys) != set(b.keys):
            common = len(set(a.keys) & set(b.keys))
            why = f"of {len(a.keys)} and {len(b.keys)} items of {name}, {common} are the same"
            raise UsageError([_different(first, second, why)])
        found[name] = difference(a, b.of_keys(a.keys))
        rows.append(_row(a, (results[0].value(a), results[1].value(b)), found[name]))
    print(f"a is {first}, b is {second}\n")
    headers = ["", "a", "b", "b - a", "95% interval", "p", "better"]
    print(table(rows, headers))
    return found


def _row(measure: Measure, values: tuple[float, float], found: Difference) -> list[str]:
    better = "b" if (found.value > 0) == measure.higher_is_better else "a"
    significant = found.low > 0 or found.high < 0
    return [
        measure.name,
        *(f"{value:.4f}" for value in values),
        f"{values[1] - values[0]:+.4f}",
        f"{found.low:+.4f} to {found.high:+.4f}",
        f"{found.p:.3f}",
        better if significant else "not significant",
    ]


def _different(first: Path, second: Path, why: str) -> Problem:
    return Problem(
        f"{first} and {second} cannot be compared",
        why,
        "evaluate both on the same data, with the same tokenizer and the same --max_examples",
    )
