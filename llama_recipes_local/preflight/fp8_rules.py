"""Rules for ``fp8``: the device multiplies in it, and the model has weights to convert."""

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.dtypes import compute_dtype
from llama_recipes_local.configs.model_types import VISION
from llama_recipes_local.configs.trained_part import trains_all
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import KEY, quantized_bits, quantized_by

HOPPER = (9, 0)


def check_fp8_device(run: Run) -> list[Problem]:
    """Find a device that cannot multiply in fp8."""
    if not run.train.fp8:
        return []
    import torch  # which ``plan`` does not

    if not torch.cuda.is_available():
        return [_refused("on CPU", "it needs an NVIDIA GPU of the Hopper generation or later")]
    capability = torch.cuda.get_device_capability()
    if capability >= HOPPER:
        return []
    name, version = torch.cuda.get_device_name(), ".".join(map(str, capability))
    why = f"{name} (compute capability {version}) is older than Hopper (9.0)"
    return [_refused("on this GPU", why)]


def check_fp8_weights(run: Run) -> list[Problem]:
    """Find weights that cannot be kept or multiplied in fp8."""
    train, config = run.train, model_config(run)
    if not train.fp8:
        return []
    if config.get("model_type") == VISION:
        return [_refused("with a vision model", "it only works with text models")]
    if quantized_bits(train) or KEY in config:
        flag = quantized_by(run) if quantized_bits(train) else "a quantised model"
        return [_refused(f"with {flag}", "weights are kept in fp8 or in another form")]
    problems = []
    if run.is_sharded and not trains_all(train):
        fix = "replicate the weights: --sharding_strategy NO_SHARD, or leave --fp8 out"
        why = "frozen weights in fp8 are kept whole on each device"
        problems.append(Problem("--fp8 with frozen weights that are sharded", why, fix))
    dtype = compute_dtype(train, run.fsdp)
    if dtype != "bfloat16":
        problems.append(_refused(f"with {dtype}", "what is not multiplied in fp8 is bfloat16"))
    return problems + _what_is_read(run)


def _what_is_read(run: Run) -> list[Problem]:
    """Return the adapter's setting that needs to read the weights themselves."""
    train = run.train
    if not train.use_peft or run.peft is None:  # an unknown method, which check_values reports
        return []
    why = "it is computed from the weights, and fp8 would round them to three bits of mantissa"
    flags = METHODS[train.peft_method].reads_weights(run.peft)
    return [_refused(f"with {flag}", why) for flag in flags]


def _refused(what: str, why: str) -> Problem:
    return Problem(f"--fp8 {what}", why, "leave --fp8 out")
