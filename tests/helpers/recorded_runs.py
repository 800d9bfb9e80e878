"""Trains with ``finetuning.main``, records which weights moved and the logits, and reloads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from methods import MODEL, QUANTIZATIONS, Cell
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from llama_recipes_local import models
from llama_recipes_local._upstream import load
from llama_recipes_local.finetuning import main
from llama_recipes_local.parallel import device_type, full_tensor, is_rank_zero
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

REPORT, TENSORS = "report.json", "recorded.safetensors"
IDS = torch.arange(3, 40).unsqueeze(0)
# logits of about 1, sums of some hundred float32 products that another kernel may add up in
# another order: 1e-6 is seen
LOGITS = 1e-5


@dataclass
class Trained:
    """What a run saved."""

    output: Path

    @property
    def report(self) -> dict[str, list[str]]:
        return json.loads((self.output / REPORT).read_text())

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.output / TENSORS)

    @property
    def saved(self) -> Path:
        """The folder of the saved adapter or model."""
        (weights,) = self.output.rglob("*model.safetensors")
        return weights.parent


@contextmanager
def replaced_train(train: Any) -> Iterator[None]:
    """Make ``main`` call ``train(original, model, ...)`` instead of ``train(model, ...)``."""
    module = load("finetuning")
    original = module.train
    module.train = lambda *args, **kwargs: train(original, *args, **kwargs)
    try:
        yield
    finally:
        module.train = original


def fine_tune(flags: dict[str, Any], output: Path) -> None:
    """Run ``main``; write a report, the trained weights and some logits to ``output``."""

    def train(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        before = weights_of(model)
        results = original(model, *args, **kwargs)
        after = weights_of(model)
        with torch.no_grad():
            logits = model.eval()(input_ids=IDS.to(device_type()), use_cache=False).logits
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        moved = {name for name, tensor in after.items() if not same_bits(tensor, before[name])}
        if is_rank_zero():
            kept = {name: after[name].contiguous() for name in trained}
            save_file(kept | {"logits": logits.cpu()}, output / TENSORS)
            report = {
                "all": sorted(after),
                "trained": sorted(trained),
                "moved": sorted(moved),
                "dtypes": sorted({str(after[name].dtype) for name in trained}),
            }
            (output / REPORT).write_text(json.dumps(report))
        return results

    with replaced_train(train):
        main(**flags, output_dir=str(output), dist_checkpoint_root_folder=str(output))


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: full_tensor(p.detach()).clone() for name, p in model.named_parameters()}


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether all bits are equal; packed 4-bit weights may look like NaN."""
    return one.contiguous().view(torch.uint8).equal(other.contiguous().view(torch.uint8))


def reloaded_logits(cell: Cell, saved: Path | None, base: Path, **precision: Any) -> torch.Tensor:
    """Return the logits of a saved model, or of an adapter loaded by plain PEFT.

    With ``saved`` None they are the base model's. The base model of an adapter is loaded with the
    flags ``precision``.
    """
    if cell.method.saves == MODEL and saved is not None:
        model: Any = models.AutoModelForCausalLM.from_pretrained(saved)
    else:
        as_trained = {
            "attn_implementation": "sdpa",
            **QUANTIZATIONS[cell.quantization],
            **precision,
        }
        with activate(resolve(as_trained)):
            model = models.AutoModelForCausalLM.from_pretrained(base)
        model = model if saved is None else peft.PeftModel.from_pretrained(model, saved)
    with torch.no_grad():
        return model.to(device_type()).eval()(input_ids=IDS.to(device_type())).logits.cpu()


def reloaded_errors(cell: Cell, run: Trained, base: Path) -> tuple[float, float]:
    """Return the errors of the reloaded model and of the model before training.

    Both are norms of the difference of logits from those after training, relative to their norm.
    """
    logits = run.tensors["logits"].float()
    start, again = (reloaded_logits(cell, saved, base) for saved in (None, run.saved))
    norms = [float((each.float() - logits).norm() / logits.norm()) for each in (again, start)]
    return norms[0], norms[1]


def rows_of_ranks(rows: int, ranks: int) -> list[float]:
    """Return the number of the rank that holds each row, as torch shards them."""
    share = -(-rows // ranks)
    return [float(row // share + 1) for row in range(rows)]


def assert_every_rank_was_saved(folder: Path, ranks: int, base: Path) -> None:
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved
    for tensor in saved.values():
        held = [row.unique().tolist() for row in tensor]
        assert held == [[number] for number in rows_of_ranks(len(tensor), ranks)]
    loaded = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), folder)
    again = peft.get_peft_model_state_dict(loaded)
    assert again.keys() == saved.keys()
    assert all(again[name].equal(tensor) for name, tensor in saved.items())
