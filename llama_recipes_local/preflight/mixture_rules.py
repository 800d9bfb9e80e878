"""Rules for mixtures: the data sets in them, and flags that cannot be combined with them."""

from collections.abc import Iterator

from llama_recipes_local.datasets.local import DATA_FLAG, VALIDATION_FLAG, local_dataset
from llama_recipes_local.datasets.mixed_sources import named_sources
from llama_recipes_local.datasets.mixture import mixed_dataset
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import field_names
from llama_recipes_local.run import Run


def check_mixture(run: Run) -> list[Problem]:
    """Find sources that cannot be mixed, and flags that are ambiguous or unused in a mixture."""
    if not isinstance(run.dataset, mixed_dataset):
        return []
    problems = list(named_sources(run.dataset)[1])
    problems += [*_shared_flags(run), *_streams(run), *_local_paths(run)]
    return problems


def _shared_flags(run: Run) -> Iterator[Problem]:
    """Yield a problem for each flag of a data set that several of the sources have."""
    classes = {type(source.config): source.dataset for source in run.mixed}
    every = {*field_names(run.train), "data_root"}
    for flag in run.flags:
        owners = [name for cls, name in classes.items() if flag in field_names(cls)]
        if len(owners) > 1 and flag not in every:
            why = f"{' and '.join(owners)} have this field, each of its own"
            fix = f"say which: {' or '.join(f'--{name}.{flag}' for name in owners)}"
            yield Problem(f"--{flag} with a mixture", why, fix)


def _streams(run: Run) -> Iterator[Problem]:
    if any(getattr(source.config, "streaming", False) for source in run.mixed):
        why = "the tokens of a stream are not known, so no share of them is either"
        fix = "leave --local_dataset.streaming out: the tokens are made once, and cached"
        yield Problem("--local_dataset.streaming with a mixture", why, fix)


def _local_paths(run: Run) -> Iterator[Problem]:
    """Yield a problem for flags that name one place for several of the user's own data sets."""
    local = [each.config for each in run.mixed if isinstance(each.config, local_dataset)]
    names = {"data_path", f"{local_dataset.__name__}.data_path"}
    given = {str(value) for flag, value in run.flags.items() if flag in names}
    if local and given - {config.data_path for config in local}:
        why = "the mixture names the files itself, and this path is none of them"
        flag = DATA_FLAG.partition("=")[0]
        yield Problem(f"{flag} with a mixture of files", why, "add it to --dataset, as PATH:WEIGHT")
    if len(local) > 1 and local[0].validation_path:
        why = f"it would be the validation part of each of the {len(local)} sources"
        fix = (
            "leave it out: rows are held out of each, or make each source a folder that has "
            "train and validation files"
        )
        yield Problem(f"{VALIDATION_FLAG.partition('=')[0]} with a mixture", why, fix)
