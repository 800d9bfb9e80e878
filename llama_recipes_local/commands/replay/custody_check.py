"""Compares a manifest with what is there: software, machine, settings, inputs and results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.replay.present_places import (
    MADE,
    flags_now,
    given_to_sft,
    present_places,
)
from llama_recipes_local.custody import software_facts
from llama_recipes_local.custody.custody_file import CHANGED, Files, Manifest, Step
from llama_recipes_local.custody.run_custody import described
from llama_recipes_local.custody.run_inputs import Place, names
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.fields import FOLDER, OF_ONE_RUN, facts
from llama_recipes_local.model_folders.auxiliary_files import TOKENIZER
from llama_recipes_local.preflight.flags import check_flags, configurations
from llama_recipes_local.recipes.settings_file import RECORD
from llama_recipes_local.run.record import read_record
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.storage.hashing import contents_hash

_SHOWN = 12  # digits of a hash
PATHS = ("model_name_or_path", "dataset_name", "data_root", "chat_template_path")
"""Flags of ``sft.py`` that say where an input is."""
_OWN = ("check", "out", "adapter", "checkpoint", "sign", "allowed_signers")
_LOADED = (
    *("*.safetensors", "*.safetensors.index.json", "*model*.bin", "*.gguf", "*.jinja", "*.model"),
    *("config.json", "generation_config.json", "adapter_config.json", "tokenizer*.json"),
    *TOKENIZER,
)
"""What models, adapters and tokenizers are read from."""
_MACHINE = ("device", "instructions", "system", "python")
"""What a run cannot be given here; threads and ranks it is given."""


@dataclass
class Checked:
    """What was found.

    Attributes:
        problems: a difference each.
        files: how many files were compared.
        notes: what is no difference and is to be known.
    """

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    notes: list[str] = field(default_factory=list)


def check(manifest: Manifest, given: Mapping[str, Any]) -> Checked:
    """Return every difference.

    Args:
        manifest: of the result.
        given: flags that say where inputs are now, by name.
    """
    found = Checked()
    if not manifest.intact:
        what = f"{manifest.path} was changed after it was written"
        fix = "copy it again from where the result was made"
        found.problems.append(Problem(what, CHANGED, fix))
    for number, step in enumerate(manifest.steps):
        last = number == len(manifest.steps) - 1
        _check_inputs(found, step, given)
        found.problems += _settings(step, given)
        if last:
            found.problems += _software(step)
            _check_results(found, step, manifest.path.parent)
        found.problems += _links(manifest.steps[:number], step)
        found.notes += _notes(step)
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _check_inputs(found: Checked, step: Step, given: Mapping[str, Any]) -> None:
    """Compare the files that a step has read with those that are at its places now."""
    places, problems = present_places(step, given)
    found.problems += problems
    for what, was in step.inputs.items():
        place = places.get(what)
        if place is None and problems:
            continue  # which say so
        flag = what if " " not in what else "dataset"
        found.problems += _compare(was, place or Place(Path(was.folder), []), f"--{flag} PATH")
        found.files += len(was.files)


def _compare(was: Files, place: Place, flag: str) -> Iterator[Problem]:
    now = dict(zip(names(place), map(contents_hash, place.files), strict=True))
    if list(now.values()) == list(was.files.values()):
        return  # also under other names
    if was.files and not now:
        what = f"{place.folder} has none of the {len(was.files)} files that were read there"
        yield Problem(what, f"the first is {next(iter(was.files))}", f"name where it is: {flag}")
        return
    back = f"put it there as it was, or name where that is: {flag}"
    for name, digest in was.files.items():
        path = place.folder / name
        if name not in now:
            yield Problem(f"{path} is missing", f"its sha256 was {digest[:_SHOWN]}", back)
        elif now[name] != digest:
            why = f"its sha256 is {now[name][:_SHOWN]}, and was {digest[:_SHOWN]}"
            yield Problem(f"{path} has other content", why, back)
    for name in now.keys() - was.files.keys():
        what = f"{place.folder / name} was not read"
        yield Problem(what, "it is here and not in the manifest", "move it elsewhere")


def _check_results(found: Checked, step: Step, folder: Path) -> None:
    """Compare the files that the last step has written."""
    if not step.results:
        why = "the manifest has no results"
        fix = "resume it: --resume_from_checkpoint auto, with its --output_dir and flags"
        found.problems.append(Problem(f"the run in {folder} has not come to its end", why, fix))
    for what, was in step.results.items():
        place = folder if what in ("output_dir", "out") else Path(was.folder)
        for name, digest in was.files.items():
            path = place / name
            now = contents_hash(path) if path.is_file() else "that of no file"
            if now != digest:
                why = f"its sha256 is {now[:_SHOWN]}, and was {digest[:_SHOWN]}"
                if not path.is_file():
                    why = f"it is missing; its sha256 was {digest[:_SHOWN]}"
                what_is = f"{path} is not what {step.command} has written"
                found.problems.append(Problem(what_is, why, "copy it again, or make it again"))
        found.files += len(was.files)
        if place == folder:
            found.problems += _added(folder, was, step.command)
    found.problems += _record(step, folder / RECORD)


def _added(folder: Path, was: Files, command: str) -> Iterator[Problem]:
    """Find files that a model or tokenizer would be read from, and that nobody recorded."""
    for path in sorted({each for pattern in _LOADED for each in folder.glob(pattern)}):
        if path.relative_to(folder).as_posix() not in was.files:
            what = f"{path} is not what {command} has written"
            yield Problem(what, "it is here and not in the manifest", "move it elsewhere")


def _record(step: Step, path: Path) -> Iterator[Problem]:
    """Compare the settings that a run's record has with those of the manifest."""
    if step.command != "finetune" or not step.results:
        return
    if not path.is_file():
        yield Problem(f"{path} is missing", "a run writes it", "copy it again")
        return
    with caught() as problems:
        content = read_record(path)
    if problems:
        yield from problems
        return
    for section, was in step.settings.items():
        now = content.get(section)
        for name in was:
            if not isinstance(now, dict) or now.get(name) != was[name]:
                value = now.get(name) if isinstance(now, dict) else None
                what = f"{name} in {path} is {value!r:.80}, and was {was[name]!r:.80}"
                yield Problem(what, "the record was changed after the run", "copy it again")


def _settings(step: Step, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Compare settings that flags give with those of a run."""
    if step.command == "sft":
        for flag, value in given_to_sft(given).items():
            if flag not in PATHS and [str(value)] != step.flags.get(flag):
                yield _setting(flag, [str(value)], step.flags.get(flag))
    if step.command != "finetune":
        return
    named = {flag: value for flag, value in given.items() if flag not in MADE}
    _, problems = check_flags(named, _OWN)
    yield from problems
    if problems:
        return
    before, after = (described(resolve(flags)) for flags in (step.flags, flags_now(step, given)))
    for section, values in before.items():
        known = facts(configurations()[section]) if section in configurations() else {}
        for name in known.keys() & values.keys():
            free = known[name].marks & {FOLDER, OF_ONE_RUN}
            now = after.get(section, {}).get(name)
            if now != values[name] and not free:
                yield _setting(name, now, values[name])


def _setting(name: str, now: object, was: object) -> Problem:
    what = f"--{name} is {now!r:.80}, and was {was!r:.80}"
    return Problem(what, "another setting makes another result", f"leave --{name} out")


def _software(step: Step) -> Iterator[Problem]:
    """Compare the code, the packages and the machine with those of now."""
    yield from _code(step)
    for package, version in step.packages.items():
        now = software_facts.version_of(package)
        if now != version:
            fix = f"pip install {package}=={version}"
            what = f"{package} is {now}, and was {version}"
            yield Problem(what, "another version may give other numbers", fix)
    machine = software_facts.machine("")
    for name in _MACHINE:
        if machine[name] != step.machine.get(name):
            what = f"the {name} is {machine[name]}, and was {step.machine.get(name)}"
            yield Problem(what, "it computes in another order", "replay on such a machine")


def _code(step: Step) -> Iterator[Problem]:
    now, was = software_facts.code(), step.code
    if now["sha256"] != was.get("sha256"):
        what = f"the code of llama_recipes_local is {_named(now)}, and was {_named(was)}"
        why = f"its sha256 is {now['sha256'][:_SHOWN]}, and was {str(was.get('sha256'))[:_SHOWN]}"
        yield Problem(what, why, "install that version, without changes")
    copy, before = software_facts.upstream(), step.upstream
    if copy == before:
        return
    patches, old = copy["patches"], before.get("patches", {})
    differ = [name for name in {**old, **patches} if patches.get(name) != old.get(name)]
    why = f"other patches: {', '.join(differ)}" if differ else "a file in it was changed"
    if copy["lock"] != before.get("lock"):
        why = f"it is of {copy['lock'][:40]}, and was of {str(before.get('lock'))[:40]}"
    yield Problem("the patched copy of llama-recipes is another", why, "install that version")


def _named(code: Mapping[str, str]) -> str:
    commit = code.get("commit", "")
    return f"{code.get('version')} ({commit[:_SHOWN]})" if commit else str(code.get("version"))


def _links(before: list[Step], step: Step) -> Iterator[Problem]:
    """Find an input of a step that is not what the step before it has written."""
    source = next(
        (step.inputs[each] for each in (*MADE, "model_name") if each in step.inputs), None
    )
    if not before or not before[-1].results or source is None:
        return
    written = {digest for each in before[-1].results.values() for digest in each.files.values()}
    for name, digest in source.files.items():
        if name.endswith((".safetensors", ".gguf")) and digest not in written:
            what = f"{name} that {step.command} has read is not what {before[-1].command} wrote"
            yield Problem(what, f"its sha256 is {digest[:_SHOWN]}", f"{step.command} again")


def _notes(step: Step) -> Iterator[str]:
    """Yield what differed before a run was resumed, from what it was at its end."""
    if step.command in ("finetune", "sft") and not step.results:
        yield f"the run of {step.command} had not come to its end: it is not made again"
    if step.resumed_from and not step.earlier:
        yield f"the run was resumed from {step.resumed_from}, and what came before has no manifest"
    for earlier in step.earlier:
        before = f"before the run was resumed from {step.resumed_from}"
        for name in ("code", "upstream", "machine", "inputs"):
            if getattr(earlier, name) != getattr(step, name):
                yield f"{before}, {name} differed"
        versions = {**step.packages, **earlier.packages}
        if changed := [name for name in step.packages if versions[name] != step.packages[name]]:
            yield f"{before}, there were other versions of {', '.join(changed)}"
        changed = [
            f"--{flag}"
            for flag in {**earlier.flags, **step.flags}
            if earlier.flags.get(flag) != step.flags.get(flag)
        ]
        if changed:
            yield f"{before}, other values were given for {', '.join(changed)}"


def read_given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags with paths from the root: a run may have been started elsewhere."""
    absolute = {}
    for flag, value in flags.items():
        path = Path(str(value)).expanduser()
        absolute[flag] = str(path.absolute()) if _is_path(flag) and path.exists() else value
    return absolute


def _is_path(flag: str) -> bool:
    name = flag.rpartition(".")[2]
    declared = (facts(cls).get(name) for cls in configurations().values())
    return name == "dataset" or any(each and FOLDER in each.marks for each in declared)
