"""The files of the guide's data sets and of the user's own, with the commands that fetch them."""

import shlex
from dataclasses import replace
from pathlib import Path

from llama_recipes_local.commands.what_to_bring.brought import Brought, File
from llama_recipes_local.commands.what_to_bring.model_files import MIRROR
from llama_recipes_local.datasets.mixed_sources import named_sources
from llama_recipes_local.datasets.mixture import mixed_dataset, split_sources
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, caught, refusal, refuse
from llama_recipes_local.messages import nearest
from llama_recipes_local.records.finding import files_below


def _hub(name: str, folder: str, *files: str) -> dict[str, list[str]]:
    words = ["hf", "download", name, *files, "--repo-type", "dataset", "--local-dir", folder]
    hf = shlex.join(words)
    return {"hf": [hf], "hf-mirror": [f"HF_ENDPOINT={MIRROR} {hf}"]}


def _samsum() -> Brought:
    folder = "datasets/samsum"
    archive = "https://arxiv.org/src/1911.12237v2/anc/corpus.7z"
    return Brought(
        "samsum_dataset",
        folder,
        [File("corpus.7z", needed=False, note="or train.csv, validation.csv and test.csv")],
        2_900_000,
        {
            "its authors": [f"curl -L --create-dirs -o {folder}/corpus.7z {archive}"],
            **_hub("knkarthick/samsum", folder),
        },
    )


def _alpaca() -> Brought:
    folder, name = "datasets", "alpaca_data_cleaned.json"
    source = "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"
    moved = f"mv {folder}/{name} {folder}/alpaca_data.json"
    cleaned = _hub("yahma/alpaca-cleaned", folder, name)
    return Brought(
        "alpaca_dataset",
        folder,
        [File("alpaca_data.json")],
        22_800_000,
        {
            "its authors": [f"curl -L --create-dirs -o {folder}/alpaca_data.json {source}"],
            **{f"cleaned, {where}": [*lines, moved] for where, lines in cleaned.items()},
        },
    )


def _guanaco() -> Brought:
    folder = "datasets/openassistant-guanaco"
    train, test = (f"openassistant_best_replies_{part}.jsonl" for part in ("train", "eval"))
    commands = _hub("timdettmers/openassistant-guanaco", folder)
    return Brought("guanaco_dataset", folder, [File(train), File(test)], 22_000_000, commands)


def _toxicchat() -> Brought:
    folder = "datasets/toxic-chat"
    parts = ("train", "test")
    files = [File(f"data/0124/toxic-chat_annotation_{part}.csv") for part in parts]
    commands = _hub("lmsys/toxic-chat", folder)
    return Brought("llamaguard_toxicchat_dataset", folder, files, 12_000_000, commands)


def _grammar() -> Brought:
    command = "llama-recipes-local prepare grammar"
    note = "it is in the locked wheel of llama-recipes, which is among the packages"
    return Brought("grammar_dataset", "datasets/grammar", [], 0, {"there": [command]}, [note])


_PUBLISHED = {each().name: each for each in (_grammar, _samsum, _alpaca, _guanaco, _toxicchat)}


def bring_data(word: str) -> list[Brought]:
    """Return what is brought of a data set, or of each of a mixture; the first has the flags.

    Args:
        word: its name, with or without ``_dataset``, a path of one's own, or ``a:7,b:3``.

    Raises:
        UsageError: with all problems.
    """
    items = split_sources(word)
    if len(items) == 1 or Path(word).expanduser().exists():
        return [_bring(word)]
    found: list[Brought] = []
    weighted: list[str] = []
    problems: list[Problem] = []
    for name, weight in items:
        with caught() as wrong:
            found.append(_bring(name))
            weighted.append(":".join([found[-1].flags[-1], *([] if weight is None else [weight])]))
        problems += wrong
    text = ",".join(weighted)
    refuse(problems or named_sources(mixed_dataset(sources=text))[1])
    first, *others = (replace(each, flags=[]) for each in found)
    return [replace(first, flags=["--dataset", text]), *others]


def _bring(word: str) -> Brought:
    """Return what is brought of one data set."""
    for name, make in _PUBLISHED.items():
        if word in (name, name.removesuffix("_dataset"), name.split("_")[-2]):
            return replace(make(), flags=["--dataset", name])
    path = Path(word).expanduser()
    if path.exists():
        return _own(path)
    shorts = [name.removesuffix("_dataset") for name in _PUBLISHED]
    near = nearest(word, [*_PUBLISHED, *shorts])
    listed = f"listed are {', '.join(_PUBLISHED)}"
    if word in DATASETS:
        listed = "it is made of files of yours"
    fix = f"did you mean --dataset {near}?" if near else "name your file or folder: --dataset PATH"
    raise refusal(f"--dataset {word} is not known", f"no file has that name, and {listed}", fix)


def _own(path: Path) -> Brought:
    """Return the files of a path with their sizes, which are those that must arrive."""
    inside = path.is_dir()
    found = files_below(path) if inside else [path]
    if not found:
        raise refusal(f"--dataset {path} has no files", "there is nothing to bring", "name another")
    root = path if inside else path.parent
    files = [
        File(each.relative_to(root).as_posix(), each.stat().st_size, exact=True) for each in found
    ]
    folder = f"datasets/{path.resolve().name}" if inside else "datasets"
    target = shlex.join(["rsync", "-a", str(path), "HOST:datasets/"])
    flags = ["--dataset", f"datasets/{path.resolve().name}"]
    size = sum(file.bytes or 0 for file in files)
    return Brought(str(path), folder, files, size, {"copy": [target]}, flags=flags)
