"""Runs under torchrun: complete fine-tunings, and checks that look at a rank's own shards.

Started with a folder, which holds ``runs.json``: flags of ``finetuning.main`` by name. Every run
writes to a folder of that name. All runs share one process group, since a second one in the same
process cannot rely on the contents of torchrun's store.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from answering_ranks import compare_answers
from bitsandbytes import functional as F
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, PeftModel, get_peft_model
from recorded_runs import replaced_train
from safetensors.torch import load_file
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, ShardingStrategy
from torch.distributed.fsdp._fully_shard._fsdp_collectives import (
    DefaultAllGather,
    DefaultReduceScatter,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel
from trained_ranks import compare_trained_gradients
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.utils.logging import disable_progress_bar

from llama_recipes_local import configs, models, parallel
from llama_recipes_local._upstream import load
from llama_recipes_local.finetuning import main
from llama_recipes_local.model_checkpointing import save_peft_checkpoint
from llama_recipes_local.optimization import AdamW, StepLR
from llama_recipes_local.parallel import FullyShardedDataParallel, fsdp_auto_wrap_policy
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.training import trial
from llama_recipes_local.training.loop import train
from llama_recipes_local.training.stepping import Stepper


def run_all(folder: Path) -> None:
    parallel.setup()
    load("finetuning").setup = parallel.cleanup = lambda: None
    runs = json.loads((folder / "runs.json").read_text())
    for name, flags in runs["mains"].items():
        with overflowing(flags.pop("overflows_on", None)):
            main(**flags, enable_fsdp=True, output_dir=str(folder / name))
    # the checks below run outside of main, which alone silences the other ranks
    warnings.simplefilter("ignore")
    disable_progress_bar()
    for name, arguments in runs["checks"].items():
        CHECKS[name](folder / name, **arguments)


@contextmanager
def overflowing(rank: int | None) -> Iterator[None]:
    """Have runs tried that may change anything, and one rank out of memory in a backward pass.

    Args:
        rank: it is, unless activations are recomputed; None changes nothing.
    """

    def hook(layer: Any, args: Any, output: torch.Tensor) -> None:
        def overflow(gradient: torch.Tensor) -> None:
            if parallel.rank() == rank and not layer.gradient_checkpointing:
                raise torch.OutOfMemoryError("out of memory. In a test. Of two ranks. Or more")

        if output.requires_grad:
            output.register_hook(overflow)

    def train_hooked(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        model.get_base_model().model.layers[0].register_forward_hook(hook)
        return original(model, *args, **kwargs)

    if rank is None:
        yield
        return
    with (
        replaced_train(train_hooked),
        mock.patch.object(trial, "is_due", lambda *_: True),
        mock.patch.object(Run, "may_change", lambda *_: True),
    ):
        yield


def adapted_and_sharded(
    model_name: str,
    dtype: torch.dtype = torch.float32,
    policy: MixedPrecisionPolicy | None = None,
    hsdp: bool = False,
    strategy: ShardingStrategy = ShardingStrategy.FULL_SHARD,
) -> PeftModel:
    """Return the model with LoRA adapters, sharded as ``main`` does."""
    kwargs: dict[str, Any] = {"dtype": dtype, "attn_implementation": "documents"}
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(model_name, **kwargs)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
    layers = fsdp_auto_wrap_policy(model, [type(model.get_base_model().model.layers[0])])
    strategy = ShardingStrategy.HYBRID_SHARD if hsdp else strategy
    mesh = parallel.hsdp_device_mesh(parallel.world_size() // 2, 2) if hsdp else None
    sharded = FullyShardedDataParallel(
        model, layers, None, policy, sharding_strategy=strategy, device_mesh=mesh
    )
    assert isinstance(sharded, PeftModel)
    return sharded


def shards(model: torch.nn.Module) -> Mapping[str, DTensor]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(isinstance(p, DTensor) for p in trained.values())
    return trained


@torch.no_grad()
def save_sentinels(output: Path, model_name: str, hsdp: bool = False) -> None:
    """Save adapters whose every entry is the number of the rank that holds it."""
    model = adapted_and_sharded(model_name, hsdp=hsdp)
    for parameter in shards(model).values():
        # with HSDP, ranks of equal number in their shard groups hold the same slice
        number = parameter.device_mesh.get_local_rank(parameter.device_mesh.mesh_dim_names[-1])
        parameter.to_local().fill_(number + 1)
    save_peft_checkpoint(model, output)


def train_in_half(output: Path, model_name: str, data: dict[str, list[list[int]]]) -> None:
    """Train float32 adapters on bfloat16 weights, cast in one unit; say what they are after."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = adapted_and_sharded(model_name, torch.bfloat16, policy)
    before = {name: p.full_tensor().clone() for name, p in shards(model).items()}
    seen = []
    layer = model.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"]
    layer.register_forward_hook(lambda *hooked: seen.append(str(hooked[2].dtype)))
    batch = {key: torch.tensor(value) for key, value in data.items()}
    optimizer = AdamW(model.parameters(), lr=1e-3)
    schedule = StepLR(optimizer, step_size=1)
    config = configs.train_config(
        enable_fsdp=True,
        use_peft=True,
        num_epochs=1,
        run_validation=False,
        output_dir=str(output),
    )
    fsdp, rank = configs.fsdp_config(), parallel.rank()
    results = train(
        model, [batch] * 3, None, None, optimizer, schedule, 1, config, fsdp, rank, rank
    )
    after = {name: p.full_tensor() for name, p in shards(model).items()}
    report = {
        "loss": results["avg_train_loss"],
        "computed_in": sorted(set(seen)),
        "held_in": sorted({str(p.dtype) for p in shards(model).values()}),
        "weights_held_in": sorted(
            {str(p.dtype) for p in model.parameters() if not p.requires_grad}
        ),
        "moved": [not after[name].equal(before[name]) for name in after],
        "optimizer_in": sorted(
            {str(s[m].dtype) for s in optimizer.state.values() for m in ("exp_avg", "exp_avg_sq")}
        ),
    }
    if parallel.is_rank_zero():
        saved = load_file(output / "adapter_model.safetensors")
        report["saved_in"] = sorted({str(tensor.dtype) for tensor in saved.values()})
        (output / "report.json").write_text(json.dumps(report))


def count_collectives(output: Path, model_name: str) -> None:
    """Report how many collectives the gradient's norm takes."""
    model = adapted_and_sharded(model_name)
    for parameter in shards(model).values():
        parameter.grad = torch.ones_like(parameter)
    stepper = Stepper(model, AdamW(model.parameters(), lr=1e-3), configs.train_config())
    with CommDebugMode() as counted:
        norm = float(stepper._gradient_norm())
    entries = sum(parameter.numel() for parameter in shards(model).values())
    if parallel.is_rank_zero():
        output.mkdir()
        report = {"collectives": counted.get_total_counts(), "norm": norm, "entries": entries}
        (output / "report.json").write_text(json.dumps(report))


def count_collectives_of_a_step(output: Path, model_name: str) -> None:
    """Report the elements of each collective in a step of four micro-batches."""
    report = {}
    for strategy in ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"):
        sharded = adapted_and_sharded(model_name, strategy=ShardingStrategy[strategy])
        model = parallel.with_shared_gradients(sharded.train())
        trained = [p for p in model.parameters() if p.requires_grad]
        report[strategy] = sizes = recorded_collectives(model)
        sizes["trained"] = [p.numel() for p in trained]
        ids = torch.arange(3, 35).view(1, 32) + 32 * parallel.rank()
        stepper = Stepper(model, AdamW(trained, lr=1e-3), configs.train_config())
        stepper.step([{"input_ids": ids, "labels": ids}] * 4, 8 * 31)
    if parallel.is_rank_zero():
        output.mkdir()
        (output / "report.json").write_text(json.dumps(report))


def recorded_collectives(model: torch.nn.Module) -> dict[str, list[int]]:
    """Return lists that grow with the elements of each collective: all, not a rank's shard."""
    sizes: dict[str, list[int]] = {"gathered": [], "reduced": []}

    class Gather(DefaultAllGather):
        def __call__(self, output_tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            sizes["gathered"].append(output_tensor.numel())
            return super().__call__(output_tensor, *args, **kwargs)

    class Scatter(DefaultReduceScatter):
        def __call__(self, output_tensor: torch.Tensor, input_tensor: Any, *args: Any, **kw: Any):
            sizes["reduced"].append(input_tensor.numel())
            return super().__call__(output_tensor, input_tensor, *args, **kw)

    def reduce_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sizes["reduced"].append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    if isinstance(model, DistributedDataParallel):
        model.register_comm_hook(None, reduce_bucket)
    for unit in (module for module in model.modules() if isinstance(module, FSDPModule)):
        unit.set_custom_all_gather(Gather())
        unit.set_custom_reduce_scatter(Scatter())
    return sizes


def average_half_gradients(output: Path, model_name: str) -> None:
    """Report bfloat16 gradients of replicas, and the dtype that they were averaged in."""
    layer = torch.nn.Linear(8, 1, bias=False, dtype=torch.bfloat16)
    model = parallel.with_shared_gradients(layer)
    own = torch.full((1, 8), 3.0 + 2 * parallel.rank(), dtype=torch.bfloat16)
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduced:
        model(own).sum().backward()
    sent = [str(call.args[0].dtype) for call in reduced.call_args_list]
    report = {"gradients": layer.weight.grad.unique().tolist(), "sent": sent}
    output.mkdir(exist_ok=True)
    (output / f"report-{parallel.rank()}.json").write_text(json.dumps(report))


def compare_packed_weights(output: Path, model_name: str) -> None:
    """Report whether 4-bit weights, and a layer's output, are the same when sharded."""
    report = {}
    for storage in ("float32", "bfloat16", "float16", "uint8"):
        flags = {"quantization": "4bit", "use_double_quant": True, "quant_storage": storage}
        report[storage] = compare_sharded(quantized_and_adapted(model_name, flags))
    report["uneven"] = compare_sharded(layers_of_odd_size())
    output.mkdir(exist_ok=True)
    (output / f"report-{parallel.rank()}.json").write_text(json.dumps(report))


def quantized_and_adapted(model_name: str, flags: dict[str, Any]) -> PeftModel:
    flags = {"model_name": model_name, "use_peft": True, "enable_fsdp": True, **flags}
    with activate(resolve(flags)):
        model = models.LlamaForCausalLM.from_pretrained(model_name)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))


def layers_of_odd_size() -> Any:
    """Return layers whose packed weights take 5 words of four bytes, and 3."""
    model: Any = torch.nn.Sequential(Linear4bit(8, 5, bias=False), Linear4bit(6, 4, bias=False))
    model.is_loaded_in_4bit = True
    return model.to(parallel.device_type())


def compare_sharded(model: Any) -> dict[str, Any]:
    """Shard with a cast to bfloat16; compare the packed numbers by their bits, and the products."""
    before = {
        name: (bits_of(weight), F.dequantize_4bit(weight, weight.quant_state))
        for name, weight in model.named_parameters()
        if isinstance(weight, Params4bit)
    }
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    layers = fsdp_auto_wrap_policy(model, [LlamaDecoderLayer])
    sharded = FullyShardedDataParallel(model, layers, None, policy)
    weights = {name: dict(sharded.named_parameters())[name] for name in before}
    units = [module for module in sharded.modules() if isinstance(module, FSDPModule)]
    equal = []
    for _ in range(2):  # the first gather makes the memory that the others fill again
        for unit in units:
            unit.unshard()
        for name, (bits, values) in before.items():
            layer: Any = sharded.get_submodule(name.rpartition(".")[0])
            gathered = bits_of(layer.weight)
            identity = torch.eye(layer.in_features, device=values.device)
            product = layer(identity).T
            equal.append([gathered.equal(bits), product.equal(values.to(product.dtype))])
        for unit in units:
            unit.reshard()
    return {
        "layers": len(before),
        # on CUDA, FSDP's copies of half floats would not keep every bit, and neither would a cast
        "gathered_as": sorted({str(w.dtype) for w in weights.values()}),
        "cast_to": [str(unit._get_fsdp_state()._mp_policy.param_dtype) for unit in units],
        "shares": sorted({w.to_local().numel() / w.numel() for w in weights.values()}),
        "equal": equal,
    }


def bits_of(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().clone().view(torch.uint8).flatten()


CHECKS = {
    "sentinels": save_sentinels,
    "hybrid-sentinels": save_sentinels,
    "half": train_in_half,
    "packed": compare_packed_weights,
    "norm": count_collectives,
    "step": count_collectives_of_a_step,
    "averaged": average_half_gradients,
    "trained": compare_trained_gradients,
    "answers": compare_answers,
}

if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
