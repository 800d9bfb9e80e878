"""Compares a result with its manifest, makes it again, and signs the manifest."""

import argparse
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.replay.custody_check import check, read_given
from llama_recipes_local.commands.replay.repeating import repeat
from llama_recipes_local.commands.replay.signing import check_signature, check_signer, sign
from llama_recipes_local.custody.custody_file import find_manifest, read_manifest
from llama_recipes_local.custody.run_inputs import absolute
from llama_recipes_local.errors import refusal, refuse
from llama_recipes_local.messages import missing_path
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.run.record import CONFIGURATION_FILE, CUSTODY_FILE


def replay(args: argparse.Namespace) -> None:
    """Do what the command does.

    Raises:
        UsageError: with every difference.
        TrainingError: if what is made again is not the same.
    """
    folder = _folder(args.arguments)
    given = read_given(args.flags)
    named = {"adapter": args.adapter, "checkpoint": args.checkpoint}
    given |= {name: str(absolute(path)) for name, path in named.items() if path is not None}
    path = find_manifest(folder)
    if path is None:
        raise _without_manifest(folder)
    manifest = read_manifest(path)
    out = absolute(args.out or path.parent.with_name(f"{path.parent.name}-replay"))
    if args.sign is not None:
        refuse(check_signer(args.sign))
    found = check(manifest, given)
    if args.sign is None or args.allowed_signers is not None:
        found.problems += check_signature(path, args.allowed_signers)
    found.problems += [] if args.check else check_output_folder(out)
    for note in found.notes:
        print(f"--> {note}")
    refuse(found.problems)
    print(f"--> nothing differs: {found.files} files, and the software that read and wrote them")
    if not args.check:
        repeat(manifest, given, out)
    if args.sign is not None:
        print(f"--> signed: {sign(path, args.sign)}")


def _folder(words: tuple[str, ...]) -> Path:
    if len(words) != 1:
        given = " ".join(words) or "nothing"
        raise refusal(f"{given} is given for RUN", "it is one folder", "name the run's folder")
    folder = absolute(words[0])
    if not folder.is_dir():
        fix = "name the folder of a run, or one that merge, export or convert wrote"
        refuse([missing_path(folder, fix)])
    return folder


def _without_manifest(folder: Path) -> Any:
    fix = f"name a folder that has {CUSTODY_FILE}"
    if (folder / CONFIGURATION_FILE).is_file():
        record = folder / CONFIGURATION_FILE
        fix = f"train again with its settings, without comparing: --config {record}"
    why = "runs, merge, export and convert write it; older versions did not"
    return refusal(f"{folder} has no {CUSTODY_FILE}", why, fix)
