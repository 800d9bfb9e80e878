"""Tokens prepared in advance: a portable folder, with the hash of every file in it.

``prepare tokens`` writes it; a run with ``--tokens_path`` uses it instead of its data's files. It
holds each source's rows in the cache's format (Arrow), ``tokens.json`` with the settings that they
depend on, and ``SHA256SUMS``, which ``sha256sum -c`` can check. Nothing in it is executed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers

from llama_recipes_local import __version__
from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.data.audit import SplitAudit
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.mixed_sources import LOCAL
from llama_recipes_local.datasets.prepared_data import PART_NAMES, RunData
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.tokenized_splits import FORMAT
from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.fields import Resume, facts
from llama_recipes_local.messages import missing_path
from llama_recipes_local.program import command
from llama_recipes_local.run import Run
from llama_recipes_local.storage.hashing import contents_hash
from llama_recipes_local.storage.publishing import published_folder, write_json

LAYOUT = 1  # of the folder; incremented when it is read in another way
VERSION = f"{LAYOUT}.{FORMAT}"
ABOUT, SUMS = "tokens.json", "SHA256SUMS"
FLAG = "tokens_path"

OF_TRAINING = ("dataset", "context_length", "seed")


def made_again() -> str:
    """Return the fix for a folder of tokens that is damaged."""
    return f"copy the folder again, or make it again: {command('prepare', 'tokens')}"


def settings_of(run: Run) -> dict[str, Any]:
    """Return the flags that a run's tokens depend on, with their values."""
    found = {name: getattr(run.train, name) for name in OF_TRAINING}
    configs = [source.config for source in run.mixed]
    for config in [run.dataset, *configs]:
        owner = type(config).__name__
        for name, known in facts(config).items() if config is not None else ():
            if known.resume is not Resume.FREE:
                found[f"{owner}.{name}"] = getattr(config, name)
    if run.mixed:  # its sources name the paths
        found.pop(f"{LOCAL}.data_path", None)
    return found


def save_tokens(run: Run, prepared: Mapping[str, RunData], data: RunData, out: Path) -> None:
    """Write the tokens of a run's sources, whole or not at all.

    Args:
        run: the run.
        prepared: its sources by name, all of them tokenised.
        data: what they are together, whose audit is written too.
        out: the folder, which is replaced.
    """
    with published_folder(out) as draft:
        sources = []
        for number, (name, source) in enumerate(prepared.items()):
            template = source.prompt_template
            stored: dict[str, Any] = {"name": name, "example": source.example}
            stored["prompt_template"] = None if template is None else asdict(template)
            stored["splits"] = splits = {}
            for part, rows in source.splits.items():
                title = PART_NAMES[part]
                file = f"{number}-{title}.arrow"
                rows.save(draft / file)
                audit, fingerprint = asdict(source.audits[title]), source.fingerprints[title]
                splits[title] = {"file": file, "fingerprint": fingerprint, "audit": audit}
            sources.append(stored)
        about = {
            "version": VERSION,
            "made_with": {"llama_recipes_local": __version__, "tokenizers": tokenizers.__version__},
            "settings": settings_of(run),
            "tokenizer": data.tokenizer,
            "sources": sources,
        }
        write_json(draft / ABOUT, about)
        data.save(draft)
        files = sorted(path.name for path in draft.iterdir())
        lines = (f"{contents_hash(draft / name)}  {name}\n" for name in files)
        (draft / SUMS).write_text("".join(lines), "utf-8")


def check_folder(folder: Path) -> list[Problem]:
    """Return each missing or altered file of a folder, and whether the folder is of this format."""
    if not (folder / SUMS).is_file():
        if not folder.is_dir():
            return [missing_path(folder, f"name one that has {SUMS}: --{FLAG} DIR")]
        why = f"{SUMS} is missing, which lists the files and their hashes"
        return [Problem(f"{folder} is not a whole folder of tokens", why, made_again())]
    sums = _sums(folder)
    problems = [each for name, digest in sums.items() for each in _altered(folder, name, digest)]
    if ABOUT not in sums:
        why = f"{SUMS} does not list it"
        problems.append(Problem(f"{folder / ABOUT} is not known to be whole", why, made_again()))
    if problems:
        return problems
    with caught() as unreadable:
        version = read_about(folder).get("version")
        if version != VERSION:
            what = f"the tokens in {folder} are of format {version}"
            why = f"this version of the package makes and reads format {VERSION}"
            return [Problem(what, why, f"make them again: {command('prepare', 'tokens')}")]
        return [
            Problem(
                f"{folder / split['file']} is not known to be whole",
                "no hash lists it",
                made_again(),
            )
            for source in read_about(folder)["sources"]
            for split in source["splits"].values()
            if split["file"] not in sums
        ]
    return unreadable


def _sums(folder: Path) -> dict[str, str]:
    """Return the hashes that a folder lists, by file."""
    lines = (folder / SUMS).read_text("utf-8", errors="replace").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[-1]: pair[0] for pair in pairs}


def _altered(folder: Path, name: str, digest: str) -> list[Problem]:
    path = folder / name
    if Path(name).name != name or not path.is_file():  # nothing outside of the folder is read
        return [Problem(f"{path} is missing", f"{SUMS} lists it", made_again())]
    found = contents_hash(path)
    if found == digest:
        return []
    why = f"its sha256 begins with {found[:12]}, and {SUMS} has {digest[:12]}"
    return [Problem(f"{path} is altered or incomplete", why, made_again())]


def read_about(folder: Path) -> dict[str, Any]:
    """Return the description in a folder of tokens.

    Raises:
        UsageError: if it cannot be read.
    """
    with door(f"{folder / ABOUT} cannot be read", made_again()):
        content = json.loads((folder / ABOUT).read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        return content


def with_settings(flags: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a run's flags with those that its tokens were made with, and problems with the folder.

    The user's own flags are kept, so that ``check_tokens`` can compare them.
    """
    named = str(flags.get(FLAG, flags.get(f"train_config.{FLAG}", "")))
    if not named.strip() or named == "True":
        return flags, []
    folder = Path(named).expanduser().resolve()
    problems = check_folder(folder)
    return (flags, problems) if problems else (read_about(folder)["settings"] | flags, [])


def load_tokens(folder: Path, parts: Sequence[Part]) -> dict[str, RunData]:
    """Return the sources that a folder has, by name; it was checked before.

    Raises:
        UsageError: if it cannot be read.
    """
    about = read_about(folder)
    found = {}
    with door(f"the tokens in {folder} cannot be read", made_again()):
        for source in about["sources"]:
            template = source["prompt_template"]
            data = found[source["name"]] = RunData(
                tokenizer=about["tokenizer"],
                prompt_template=None if template is None else PromptTemplate(**template),
                example=source["example"],
            )
            for part in parts:
                title = PART_NAMES[part]
                split = source["splits"][title]
                data.splits[part] = TokenRows.open(folder / split["file"])
                data.audits[title] = SplitAudit.from_json(split["audit"])
                data.fingerprints[title] = split["fingerprint"]
    return found
