"""Checkpoints that are damaged, or changed and hashed again."""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from forked_runs import difference, result
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attacks.lab import Found, Lab, unclean, unexpected

NEWEST = "checkpoint-6"
LAST = "checkpoint-5"
DOCUMENTS = ("trainer.json", "trainer.json", "identity.json", "random/rank-0.json")
AS_GOOD = re.compile(r"seconds|random|'step'|numpy', 1|python', 1|torch")
"""Places of numbers of which each other is as good: times, random numbers, an optimiser's steps."""
VALUES: tuple[object, ...] = (-3, 10**30, 1e400, "x", None, [], {}, True, 0)
"""What numbers and lists of a checkpoint are replaced by."""


def damaged(lab: Lab, found: Found) -> None:
    """Damage a file of the newest checkpoint; auto must skip it, to the same bits."""
    newest = lab.straight / NEWEST
    files = [str(p.relative_to(newest)) for p in newest.rglob("*") if p.is_file()]
    cases = [(name, harm) for name in files for harm in HARMS]
    lab.random.shuffle(cases)
    for name, harm in cases[: lab.count(len(cases))]:
        with lab.output() as output:
            shutil.copytree(lab.straight, output)
            harm(output / NEWEST / name, lab.random)
            wrong = lab.again(output) or unclean(lab.said())
            if f"{NEWEST} skipped" not in lab.said():
                wrong = wrong or "it was not skipped"
            found.add(f"{harm.__name__} {name}", wrong, lab.said())


def flip(path: Path, random: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path: Path, random: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, random: random.Random) -> None:
    path.write_bytes(b"")


def zero(path: Path, random: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def nest(path: Path, random: random.Random) -> None:
    path.write_text("[" * 100_000)


def remove(path: Path, random: random.Random) -> None:
    path.unlink()


def make_folder(path: Path, random: random.Random) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path, random: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, cut, empty, zero, nest, remove, make_folder, make_pipe),
)


Tensors = dict[str, torch.Tensor]
TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "one is missing": lambda t: dict(list(t.items())[1:]),
    "none": lambda t: {},
    "one more": lambda t: t | {"x": torch.zeros(2)},
    "int8": lambda t: {name: value.to(torch.int8) for name, value in t.items()},
    "transposed": lambda t: {name: value.T.contiguous() for name, value in t.items()},
    "flat": lambda t: {name: value.flatten() for name, value in t.items()},
    "half of each": lambda t: {name: value[: len(value) // 2] for name, value in t.items()},
    "other names": lambda t: {f"x.{name}": value for name, value in t.items()},
    "not a number": lambda t: {name: value * float("nan") for name, value in t.items()},
}
"""What is done to the tensors of a file."""


def hashed_again(lab: Lab, found: Found) -> None:
    """Change values and tensors of a checkpoint and hash it again.

    What results must be refused, skipped, or without effect.
    """
    for number in range(lab.count(60)):
        name = lab.random.choice(DOCUMENTS)
        document = json.loads((lab.straight / NEWEST / name).read_text("utf-8"))
        places = [path for path in leaves(document) if not AS_GOOD.search(str(path))]
        path, value = lab.random.choice(places), VALUES[number % len(VALUES)]
        change = partial(put_in, name, path, value)
        resumed_from(lab, found, f"{name} {'.'.join(map(str, path))} = {value!r}", change)
    files = ("model/rank-00000-00000.safetensors", "optimizer/rank-00000-00000.safetensors")
    for name in files:
        for how, tensors in TENSORS.items():
            resumed_from(lab, found, f"{name}: {how}", partial(retensored, name, tensors))
    resumed_from(lab, found, "a copy as checkpoint-99", copied)
    resumed_from(lab, found, "a file more", lambda folder: (folder / "model/x.safetensors").touch())


def resumed_from(lab: Lab, found: Found, name: str, change: Callable[[Path], object]) -> None:
    """Resume a run whose last checkpoint was changed."""
    with lab.output() as output:
        shutil.copytree(lab.straight, output)
        shutil.rmtree(output / NEWEST)  # so that a step is left to do
        change(output / LAST)
        hash_again(output / LAST)
        codes = lab.run_ranks(lab.flags(output))
        wrong = unclean(lab.said()) or unexpected(codes[0], (0, 1, 2))
        if codes == [0] and not wrong:
            wrong = difference(result(output), lab.undisturbed().result)
        found.add(name, wrong and f"it changed: {wrong}", lab.said())


def put_in(name: str, path: tuple[str | int, ...], value: object, folder: Path) -> None:
    document = json.loads((folder / name).read_text("utf-8"))
    put(document, path, value)
    (folder / name).write_text(json.dumps(document), "utf-8")


def retensored(name: str, how: Callable[[Tensors], Tensors], folder: Path) -> None:
    with safe_open(folder / name, "pt") as file:
        metadata = file.metadata()
    save_file(how(load_file(folder / name)), folder / name, metadata)


def copied(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("checkpoint-99"))


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value of a JSON document that holds no others, or is a list."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path
        for number, value in enumerate(tree if isinstance(tree, list) else ()):
            yield from leaves(value, (*path, number))


def put(tree: Any, path: tuple[str | int, ...], value: object) -> None:
    """Set a value of a JSON document, if it has the place."""
    for key in path[:-1]:
        if isinstance(tree, list) and not (isinstance(key, int) and key < len(tree)):
            return
        tree = tree[key]
    if isinstance(tree, dict) or path[-1] < len(tree):  # type: ignore[operator]
        tree[path[-1]] = value


def hash_again(checkpoint: Path) -> None:
    """Write a manifest that fits a changed checkpoint."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    del manifest["sha256"]
    for name, entry in manifest["files"].items():
        data = (checkpoint / name).read_bytes()
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(manifest, indent=1, sort_keys=True)
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")
