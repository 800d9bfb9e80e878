"""Runs under torchrun: trains each method on several ranks, and saves ranks' own numbers.

Started with a folder that holds ``runs.json``: the flags of ``finetuning.main`` by name. All runs
share one process group, see ``sharded_runs.py``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from recorded_runs import fine_tune, replaced_train
from torch.distributed.fsdp import MixedPrecisionPolicy

from llama_recipes_local import configs, parallel
from llama_recipes_local._upstream import load
from llama_recipes_local.finetuning import main
from llama_recipes_local.model_checkpointing import save_peft_checkpoint


def run_all(folder: Path) -> None:
    parallel.setup()
    load("finetuning").setup = parallel.cleanup = lambda: None
    runs = json.loads((folder / "runs.json").read_text())
    for name, flags in runs["trained"].items():
        fine_tune(flags | {"enable_fsdp": True}, folder / name)
    for name, flags in runs["sentinels"].items():
        with replaced_train(save_sentinels):
            main(**flags, enable_fsdp=True, output_dir=str(folder / name))
    with_policies_of_cuda()
    for name, flags in runs["half"].items():
        fine_tune(flags | {"enable_fsdp": True, "dtype": "bfloat16"}, folder / name)


def with_policies_of_cuda() -> None:
    """Make FSDP2 gather in bfloat16 and reduce in float32, as on CUDA."""
    layers = parallel.get_policies(configs.fsdp_config(), parallel.rank())[1]
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    load("finetuning").get_policies = lambda *_: (policy, layers)


@torch.no_grad()
def save_sentinels(original: Any, model: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Save an adapter whose every entry is the number of its rank, from 1."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.to_local().fill_(parallel.rank() + 1)
    (config,) = (arg for arg in args if hasattr(arg, "output_dir"))
    save_peft_checkpoint(model, config.output_dir)
    return {}


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
