"""Records in an adapter's folder which weights it was trained on, and compares them later.

Without this, another model of the same shape would be used silently, and give nonsense. Folders may
be moved, sharded differently, or hold the same weights in another dtype or quantised.
"""

import base64
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG
from llama_recipes_local.model_folders.sampled_hash import Place, places, sampled_hash
from llama_recipes_local.model_folders.tensors import FLOATS
from llama_recipes_local.model_folders.weight_files import has_weights, weight_files
from llama_recipes_local.run.record import BASE_RECORD
from llama_recipes_local.storage.publishing import write_json

OTHER_BASE = "--allow_other_base"
_LAYERS = 48  # tensors of decoder layers of which some numbers are kept
_NUMBERS = 16  # of each


class Comparison(NamedTuple):
    """The result of comparing a model's folder with an adapter's record.

    Attributes:
        problems: the problem that it is another model.
        note: a note on a copy in another form, or on an adapter without a record; or "".
    """

    problems: list[Problem]
    note: str = ""


class _Sample(NamedTuple):
    """Some numbers of a tensor: its dtype, and the numbers in float32, in base64."""

    dtype: str
    numbers: str

    def content(self) -> bytearray:
        """Return the numbers' bytes."""
        return bytearray(base64.b64decode(self.numbers))

    def is_cast_of(self, other: "_Sample") -> bool:
        """Return whether one of two samples is the other, rounded to its dtype."""
        (first, a), (second, b) = (
            (FLOATS[each.dtype], torch.frombuffer(each.content(), dtype=torch.float32))
            for each in (self, other)
        )
        if a.shape != b.shape:
            return False
        return torch.equal(a.to(second).float(), b) or torch.equal(b.to(first).float(), a)


@dataclass(frozen=True)
class _Record:
    """What is recorded of a model's weights.

    Attributes:
        name: the folder's last name.
        hash: see ``sampled_hash``.
        dtype: the tensors' dtypes, in words.
        tensors: how many there are.
        samples: some numbers of some of them, by name.
    """

    name: str
    hash: str
    dtype: str
    tensors: int
    samples: dict[str, _Sample]

    @classmethod
    def of(cls, folder: Path, names: Collection[str] | None = None) -> "_Record":
        """Describe the weights in a folder, with samples of the tensors named, or of a choice."""
        tensors = places(weight_files(folder))
        kept = [each for each in tensors if each.dtype in FLOATS and each.begin < each.end]
        if names is None:
            inside = [each.name for each in kept if ".layers." in each.name]
            step = max(1, len(inside) // _LAYERS)
            names = {each.name for each in kept} - set(inside) | set(inside[::step])
        dtype = " and ".join(sorted({each.dtype for each in tensors}))
        samples = {each.name: _sampled(each) for each in kept if each.name in names}
        return cls(folder.name, sampled_hash(tensors), dtype, len(tensors), samples)

    @classmethod
    def read(cls, adapter: Path) -> "_Record | None":
        """Return what an adapter's folder records; None if it does not, or it cannot be read."""
        try:
            found = json.loads((adapter / BASE_RECORD).read_text("utf-8"))
            found["samples"] = {key: _Sample(*each) for key, each in found["samples"].items()}
            record = cls(**found)
            all(each.is_cast_of(each) for each in record.samples.values())  # can be decoded
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return record

    def difference(self, now: "_Record") -> str:
        """Return a tensor in which another model differs; "" if only its form differs."""
        named = f"that was {self.name!s:.80} ({self.dtype!s:.80}), and "
        common = [name for name in self.samples if name in now.samples]
        for name in common:
            if not self.samples[name].is_cast_of(now.samples[name]):
                return f"{named}{name} has other values"
        if not common or (self.dtype, self.tensors) == (now.dtype, now.tensors):
            return f"{named}the weights are others"
        return ""


def record_base(adapter: Path, base: Path) -> None:
    """Write next to an adapter which weights it was trained on.

    Args:
        adapter: the folder that the adapter was just saved in.
        base: the base model's folder; without weights there is nothing to record.
    """
    if has_weights(base):
        write_json(adapter / BASE_RECORD, asdict(_Record.of(base)))


def compare_base(adapter: Path, base: Path, flag: str, allowed: bool = False) -> Comparison:
    """Compare a base model's folder with the one that an adapter was trained on.

    Args:
        adapter: the adapter's folder.
        base: the folder of the base model, whose weights were checked.
        flag: the flag that names the base model.
        allowed: whether another model may be used; then a note tells it.
    """
    was = _Record.read(adapter)
    if was is None:
        return Comparison([], _by_name(adapter, base))
    now = _Record.of(base, was.samples)
    if now.hash == was.hash:
        return Comparison([])
    why = was.difference(now)
    if not why:
        form = f"with tensors in {now.dtype} instead of {was.dtype}"
        if now.dtype == was.dtype:
            form = f"in {now.tensors} tensors instead of {was.tensors}"
        return Comparison([], f"{base} has the weights that the adapter was trained on, {form}")
    what = f"the base model in {base} is not the one that the adapter in {adapter} was trained on"
    if allowed:
        return Comparison([], f"{what}: {why}; it is used all the same ({OTHER_BASE})")
    fix = f"name that model's folder: {flag} DIR; or try the adapter on this one: {OTHER_BASE}"
    return Comparison([Problem(what, why, fix)])


def _sampled(place: Place) -> _Sample:
    """Return numbers from a tensor's middle, in float32, which holds them exactly."""
    dtype = FLOATS[place.dtype]
    content = bytearray(place.middle(_NUMBERS, dtype.itemsize))
    numbers = torch.frombuffer(content, dtype=dtype)
    return _Sample(place.dtype, base64.b64encode(numbers.float().numpy().tobytes()).decode())


def _by_name(adapter: Path, base: Path) -> str:
    """Return a note for an adapter that does not record its base model's weights."""
    try:
        named = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        named = None
    name = Path(str(named)).name if named else ""
    found = name if name == base.name else f"it names {name or 'none'}, and {base} is used"
    note = "the adapter does not record its base model's weights, so only the name is compared"
    return f"{note}: {found}"
