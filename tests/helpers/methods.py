"""Methods, shardings and quantisations, and which combinations work: the README's table."""

from dataclasses import dataclass, field
from typing import Any

ADAPTER, MODEL = "adapter", "model"


@dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Attributes:
        name: its name in the table.
        flags: the flags that ask for it.
        trained: matches the names of the trainable parameters, and no others.
        saves: what it leaves, an adapter or a full model.
        small: settings for the tests' tiny model only.
    """

    name: str
    flags: dict[str, Any]
    trained: str
    saves: str
    small: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def lora(name: str, trained: str = r"\.lora_[AB]\.", **flags: Any) -> Method:
    return Method(name, {"use_peft": True, **flags}, trained, ADAPTER, {"lora_dropout": 0.0})


def full_model(name: str, trained: str, **flags: Any) -> Method:
    return Method(name, flags, trained, MODEL)


def other_adapter(name: str, method: str, trained: str, **small: Any) -> Method:
    return Method(name, {"use_peft": True, "peft_method": method}, trained, ADAPTER, small)


METHODS = [
    lora("LoRA"),
    lora(
        "LoRA+, rsLoRA, all linear layers",
        loraplus_lr_ratio=16.0,
        use_rslora=True,
        target_modules="all-linear",
    ),
    lora("DoRA", r"\.lora_(A|B|magnitude_vector)\.", use_dora=True),
    lora("PiSSA", init_lora_weights="pissa"),
    other_adapter(
        "LLaMA-Adapter",
        "llama_adapter",
        r"\.adaption_(prompt|gate)$",
        adapter_len=4,
        adapter_layers=2,
    ),
    other_adapter("prefix tuning", "prefix", "^prompt_encoder", num_virtual_tokens=5),
    full_model("all layers", ""),
    full_model(
        "without the first N layers",
        r"^model\.(layers\.1|embed_tokens|norm)\.|^lm_head",
        freeze_layers=True,
        num_freeze_layers=1,
    ),
    full_model("the head", "^lm_head", train_only="lm_head"),
    full_model("the last N layers", r"^model\.layers\.1\.", train_only="last:1"),
    full_model("new layers on top", r"^model\.top_layers\.", top_layers=2),
]

ALONE = "one device"
SHARDINGS: dict[str, dict[str, Any]] = {
    ALONE: {},
    "NO_SHARD": {"sharding_strategy": "NO_SHARD"},
    "FULL_SHARD": {"sharding_strategy": "FULL_SHARD"},
    "SHARD_GRAD_OP": {"sharding_strategy": "SHARD_GRAD_OP"},
    "HYBRID_SHARD": {
        "sharding_strategy": "HYBRID_SHARD",
        "hsdp": True,
        "replica_group_size": 2,
        "sharding_group_size": 1,
    },
    "CPU offload": {"fsdp_cpu_offload": True},
}
# float32 on any device
PRECISION: dict[str, Any] = {"dtype": "float32", "mixed_precision": False}
# whose saved files show each rank's shard
SENTINELS = ("LoRA", "DoRA", "LLaMA-Adapter", "prefix tuning")

UNQUANTIZED, IN_4BIT, IN_8BIT = "none", "4bit", "8bit"
QUANTIZATIONS: dict[str, dict[str, Any]] = {
    UNQUANTIZED: {},
    IN_4BIT: {"quantization": "4bit"},
    IN_8BIT: {"quantization": "8bit"},
}
UNTRAINABLE = "--quantization {quantization} without --use_peft"
UNSHARDABLE = "--quantization 8bit with weights that are sharded"
NO_DORA = "--use_dora with --quantization 8bit on the CPU"
NO_PISSA = "--init_lora_weights pissa with --quantization {quantization}"


@dataclass(frozen=True)
class Cell:
    """A method with a sharding and a quantisation."""

    method: Method
    sharding: str
    quantization: str

    def __str__(self) -> str:
        return f"{self.method}-{self.sharding}-{self.quantization}"

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that ask for it, and the settings of the tests' model."""
        chosen = SHARDINGS[self.sharding] | QUANTIZATIONS[self.quantization]
        saved = {"checkpoint_type": "FULL_STATE_DICT"} if self.method.saves == MODEL else {}
        return self.method.flags | self.method.small | chosen | (saved if self.is_spread else {})

    @property
    def is_spread(self) -> bool:
        """Whether it runs on several ranks."""
        return self.sharding != ALONE

    @property
    def refused(self) -> str | None:
        """The problem that is reported, or None if the combination works."""
        if self.quantization == UNQUANTIZED:
            return None
        if self.method.saves == MODEL:
            return UNTRAINABLE.format(quantization=self.quantization)
        if self.quantization == IN_8BIT and self.sharding not in (ALONE, "NO_SHARD"):
            return UNSHARDABLE
        if self.method.flags.get("init_lora_weights") == "pissa":
            return NO_PISSA.format(quantization=self.quantization)
        if self.quantization == IN_8BIT and self.method.flags.get("use_dora"):
            return NO_DORA
        return None


CELLS = [
    Cell(method, sharding, quantization)
    for quantization in QUANTIZATIONS
    for method in METHODS
    for sharding in SHARDINGS
]
TRAINED_ALONE = [cell for cell in CELLS if not cell.is_spread and cell.refused is None]
TRAINED_SPREAD = [cell for cell in CELLS if cell.is_spread and cell.refused is None]
REFUSED = [cell for cell in CELLS if cell.refused is not None]
# float32 adapters on bfloat16 weights; LoRA+'s learning rate amplifies each rounding too much
IN_HALF = [
    cell
    for cell in TRAINED_SPREAD
    if (cell.sharding, cell.quantization) == ("FULL_SHARD", UNQUANTIZED)
    and (cell.method.saves == ADAPTER or "top_layers" in cell.method.flags)
    and "loraplus_lr_ratio" not in cell.method.flags
]
