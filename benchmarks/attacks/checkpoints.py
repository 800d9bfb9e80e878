"""Checkpoints that are damaged, or changed and hashed again."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from forked_runs import difference, result

from attacks.lab import Found, Lab, unclean, unexpected

NEWEST = "checkpoint-6"
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


def hashed_again(lab: Lab, found: Found) -> None:
    """Change values of a checkpoint and hash it again.

    What results must be refused, skipped, or without effect.
    """
    trainer = json.loads((lab.straight / NEWEST / "trainer.json").read_text("utf-8"))
    places = [path for path in leaves(trainer) if "seconds" not in str(path)]
    for number in range(lab.count(60)):
        path, value = lab.random.choice(places), VALUES[number % len(VALUES)]
        with lab.output() as output:
            keep_a_step_to_do(lab, output)
            checkpoint = output / "checkpoint-5"
            trainer = json.loads((checkpoint / "trainer.json").read_text("utf-8"))
            if not put(trainer, path, value):
                continue
            (checkpoint / "trainer.json").write_text(json.dumps(trainer), "utf-8")
            hash_again(checkpoint)
            codes = lab.run_ranks(lab.flags(output))
            wrong = unclean(lab.said()) or unexpected(codes[0], (0, 1, 2))
            if codes == [0] and not wrong:
                wrong = difference(result(output), lab.undisturbed().result)
            name = f"{'.'.join(map(str, path))} = {value!r}"
            found.add(name, wrong and f"it changed: {wrong}", lab.said())


def keep_a_step_to_do(lab: Lab, output: Path) -> None:
    """Copy the undisturbed run's output without its last checkpoint."""
    shutil.copytree(lab.straight, output)
    shutil.rmtree(output / NEWEST)


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value of a JSON document that holds no others, or is a list."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path
        for number, value in enumerate(tree if isinstance(tree, list) else ()):
            yield from leaves(value, (*path, number))


def put(tree: Any, path: tuple[str | int, ...], value: object) -> bool:
    """Set a value of a JSON document; return whether that changes it."""
    for key in path[:-1]:
        if isinstance(tree, list) and not (isinstance(key, int) and key < len(tree)):
            return False
        tree = tree[key]
    if isinstance(tree, list) and not (isinstance(path[-1], int) and path[-1] < len(tree)):
        return False
    changes = bool(tree[path[-1]] != value or type(tree[path[-1]]) is not type(value))
    tree[path[-1]] = value
    return changes


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
