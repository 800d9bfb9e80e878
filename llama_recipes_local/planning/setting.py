"""The setting that a plan is made for: the model's shape, what is trained, and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from llama_recipes_local.planning.shapes import LINEAR, Shape

KEEP, SELECTIVE, FULL, OFFLOAD = "keep", "selective", "full", "offload"
"""What becomes of activations between forward and backward pass: all are kept; norms' outputs are
computed again; all but each layer's input are; the same, with the inputs in host memory."""

PLAIN, FUSED, FROZEN = "plain", "fused", "frozen"
"""Which kernels compute a model: transformers' modules, liger-kernel's, or those for frozen
weights."""

DOCUMENTS, PADDED, MASKED, SCORED = "documents", "padded", "masked", "scored"
"""How a row is attended: its documents apart, with a mask if there are several padded ones, with a
mask, or by products whose scores are kept (``--attn_implementation eager``)."""

ALONE, REPLICATED, SHARD_GRAD_OP, FULL_SHARD, HYBRID_SHARD = (
    "one process",
    "NO_SHARD",
    "SHARD_GRAD_OP",
    "FULL_SHARD",
    "HYBRID_SHARD",
)


@dataclass(frozen=True)
class Weights:
    """How the model's own weights are held.

    Attributes:
        trained: how many of them are trained.
        bytes: of a weight that is not quantised.
        bits: 4 or 8 if linear layers are quantised by bitsandbytes; 0 if not.
        double: whether the scales of 4-bit weights are quantised too.
        fp8: whether linear layers are stored in fp8, and multiplied in it.
        trained_in_fp8: whether linear layers are trained, and converted to fp8 for each product.
        layers: decoder layers that need activations, because weights in them or below them are
            trained; None means all.
    """

    trained: int = 0
    bytes: int = 2
    bits: int = 0
    double: bool = False
    fp8: bool = False
    trained_in_fp8: bool = False
    layers: int | None = None

    @property
    def in_fp8(self) -> bool:
        """Whether linear layers are multiplied in fp8."""
        return self.fp8 or self.trained_in_fp8

    @property
    def of_linear(self) -> float:
        """Bytes of a linear layer's weight.

        In 4 bits there is a float32 scale for each 64 weights; with double quantisation an 8-bit
        scale, and a float32 for each 256 of those. In 8 bits there is a scale a row, which is
        negligible.
        """
        if self.bits == 4:
            return 0.5 + (1 / 64 + 4 / (64 * 256) if self.double else 4 / 64)
        if self.bits == 8 or self.fp8:
            return 1.0
        return self.bytes

    @property
    def shared(self) -> float:
        """Bytes of a linear layer's weight that FSDP shards: not the scales of 4-bit weights."""
        return 0.5 if self.bits == 4 else self.of_linear


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        method: "lora", "llama_adapter" or "prefix".
        rank: of LoRA.
        targets: layers that have LoRA, the embedding and the head among them.
        bytes: of a weight, of its gradient and of each moment.
        drops: whether it has dropout.
        dora: whether it is DoRA: magnitudes and directions are trained separately.
        tokens: of a prefix, or of LLaMA-Adapter's prompts.
        layers: decoder layers that have it; 0 means all.
    """

    method: str = "lora"
    rank: int = 8
    targets: frozenset[str] = frozenset(("q_proj", "v_proj"))
    bytes: int = 4
    drops: bool = True
    dora: bool = False
    tokens: int = 0
    layers: int = 0

    def weights(self, shape: Shape) -> int:
        """Weights that are trained."""
        layers = self.layers or shape.layers
        if self.method == "prefix":
            return layers * self.tokens * 2 * shape.keys
        if self.method == "llama_adapter":
            return layers * (self.tokens * shape.hidden + 1)
        extra = 1 if self.dora else 0  # a magnitude for each output
        size = {
            name: self.rank * (inputs + outputs) + extra * outputs
            for name, (inputs, outputs) in (shape.matrices | shape.ends).items()
        }
        return layers * sum(size[name] for name in LINEAR if name in self.targets) + sum(
            size[name] for name in shape.ends if name in self.targets
        )


@dataclass(frozen=True)
class Batch:
    """What is computed at once.

    Attributes:
        rows: of a rank's micro-batch.
        length: tokens of a row.
        accumulation: micro-batches of a step.
        document: tokens of a document; a packed row has several. Attention takes longer for longer
            documents.
        labelled: share of the tokens that have a label.
    """

    rows: int = 1
    length: int = 4096
    accumulation: int = 1
    document: int = 512
    labelled: float = 0.5

    @property
    def tokens(self) -> int:
        """Tokens of a rank's micro-batch."""
        return self.rows * self.length


@dataclass(frozen=True)
class Validation:
    """What a validation computes at once.

    Attributes:
        tokens: of a rank's batch.
        answered: tokens of prompts and answers that are generated together; 0 if none are.
    """

    tokens: int
    answered: int = 0


@dataclass(frozen=True)
class Ranks:
    """The ranks that train together.

    Attributes:
        world: how many.
        hosts: on how many hosts.
        sharding: a sharding strategy, one of the constants above.
        group: ranks that share a copy of the model in HYBRID_SHARD; 0 means the ranks of a host.
        cpu_offload: whether weights, gradients and moments are in host memory.
    """

    world: int = 1
    hosts: int = 1
    sharding: str = ALONE
    group: int = 0
    cpu_offload: bool = False

    @property
    def shards(self) -> int:
        """The number of ranks that the weights are divided over."""
        if self.sharding in (ALONE, REPLICATED):
            return 1
        if self.sharding == HYBRID_SHARD:
            return min(self.group or max(self.world // self.hosts, 1), self.world)
        return self.world

    @property
    def uses_fsdp(self) -> bool:
        """Whether FSDP2 holds the weights, sharded or as replicas."""
        return self.sharding != ALONE


@dataclass(frozen=True)
class Setting:
    """All that memory and time depend on.

    Attributes:
        shape: of the model.
        weights: how its weights are held.
        adapter: None without.
        batch: what is computed at a time.
        ranks: who computes it.
        policy: what becomes of activations.
        kernels: what computes them.
        optimizer: as ``--optimizer`` names it, in lower case.
        attention: how a row is attended.
        copies: whether replicas are copied, and what stays gathered is gathered again for each
            micro-batch, as it was.
        repeats_keys: whether keys and values are copied for each head of a group, as they were.
        flash: whether long rows are attended by FlashAttention on Hopper too, as they were, and
            are with ``--attn_implementation flash_attention_2``.
        on_cpu: whether it is trained on a CPU, in host memory.
        element: bytes of an activation's feature.
        tiles: whether the MLP of a recomputed layer with frozen weights is computed some thousand
            tokens at a time, as it was not.
        validation: None without one.
    """

    shape: Shape
    weights: Weights = Weights()
    adapter: Adapter | None = None
    batch: Batch = Batch()
    ranks: Ranks = Ranks()
    policy: str = KEEP
    kernels: str = FROZEN
    optimizer: str = "adamw"
    attention: str = DOCUMENTS
    copies: bool = False
    repeats_keys: bool = False
    flash: bool = False
    on_cpu: bool = False
    element: float = 2.0
    tiles: bool = True
    validation: Validation | None = None

    @cached_property
    def adapted(self) -> frozenset[str]:
        """Linear layers of a decoder layer that have LoRA."""
        lora = self.adapter is not None and self.adapter.method == "lora"
        return self.adapter.targets & set(LINEAR) if self.adapter and lora else frozenset()

    @property
    def document(self) -> int:
        """Tokens that a document's last token is compared with."""
        apart = not self.is_masked and self.attention != SCORED
        return min(self.batch.document, self.batch.length) if apart else self.batch.length

    @property
    def is_masked(self) -> bool:
        """Whether a mask hides what a token does not see."""
        return self.attention == MASKED or (self.attention == PADDED and self.batch.rows > 1)

    @property
    def trained(self) -> int:
        """Weights that are trained."""
        own = self.adapter.weights(self.shape) if self.adapter is not None else 0
        return own + self.weights.trained

    @property
    def layers(self) -> int:
        """Decoder layers with a backward pass."""
        own = self.weights.layers
        return self.shape.layers if own is None else own

    @property
    def recomputes(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return self.policy in (FULL, OFFLOAD)

    @property
    def is_gathered(self) -> bool:
        """Whether FSDP2 gathers units of weights; replicas on the devices belong to DDP."""
        replicas = self.ranks.sharding == REPLICATED and not self.ranks.cpu_offload
        return self.ranks.uses_fsdp and (self.copies or not replicas)

    @property
    def has_tiles(self) -> bool:
        """Whether the MLP is computed some thousand tokens at a time."""
        frozen = self.kernels == FROZEN and not self.weights.trained
        return self.tiles and self.recomputes and frozen

    @property
    def global_batch(self) -> int:
        """Rows of an optimiser step."""
        return self.batch.rows * self.batch.accumulation * self.ranks.world

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Return the linear layers of a decoder layer, grouped by the input that they read."""
        return {
            "normed": ("q_proj", "k_proj", "v_proj"),
            "attended": ("o_proj",),
            "normed again": ("gate_proj", "up_proj"),
            "activated": ("down_proj",),
        }
