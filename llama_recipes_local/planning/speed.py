"""The seconds of an optimiser step, by purpose.

A step is made of matrix products at a fraction of the card's rate, passes over memory at a fraction
of its bandwidth, attention, dequantisation, the optimiser, and communication between ranks. The
fractions are fitted to runs on an H100 and an H200, see ``benchmarks/predictions.py``.

The letters for features of a token are those of ``memory``.
"""

from dataclasses import dataclass, fields, replace
from math import ceil, log2

from llama_recipes_local.planning.cards import NODES, Card
from llama_recipes_local.planning.setting import (
    DOCUMENTS,
    FROZEN,
    FUSED,
    OFFLOAD,
    REPLICATED,
    SCORED,
    SELECTIVE,
    SHARD_GRAD_OP,
    Setting,
)
from llama_recipes_local.planning.shapes import LINEAR

PRODUCTS = 0.88
"""What a step's products reach of the rate of one that is 8192 cubed, by a profile of LoRA at the
7B shape on an H200."""

READS = 0.75
"""What passes over memory reach of the card's bandwidth, launches included; fitted."""

TRANSFORMERS, LIGER = 3.7, 1.25
"""Passes of transformers' and of liger-kernel's norms, rotary, SwiGLU and additions, to those of
the kernels for frozen weights; fitted."""

SCORES = 29
"""Times that scores are read or written, in the layer's dtype, where they are kept: 12 forward (the
product, its scale, the mask, softmax into float32, the cast) and 17 backward."""

ATTENTION = 0.45
"""What attention over long documents reaches of a product's rate, forward and backward."""

LONG = 2048  # tokens of a row, or a multiple, that cuDNN attends, in ``kernels.attention``

DEQUANTISED = 0.6e12
"""4-bit weights a second on an H100: 4096 x 11008 took bitsandbytes 63 microseconds, and more with
the host's part of a call; fitted."""

COPIES = 300e9
"""Bytes a second of what FSDP gathers and reduces that are not hidden behind products, on NVLink:
they are copied twice, and take a part of the card from the products meanwhile."""

LINKED = 0.8
"""What collectives reach of a link's rate."""

CALLED, CALLED_ADAPTER, CALLED_4BIT = 1.4e-3, 0.2e-3, 0.15e-3
"""Seconds that the host takes for the calls of a layer's forward and backward pass, for each layer
with LoRA in it and for each in 4 bits: with an empty queue, on an H200's host of 32 cores with
nothing else to do; beside other work one took up to 1.7 times as long. In 4 bits by an earlier run
and what the others have gained since."""

CALLED_FULL, CALLED_AGAIN = 1.8e-3, 2.3
"""The same for a layer whose weights are trained, and what recomputation makes of all of these."""

CALLED_FP8, CALLED_FULL_FP8 = 0.15e-3, 0.4e-3
"""The same for each layer that multiplies in fp8, frozen and trained."""

OVERLAP = 3
"""Host and device wait for each other in parts of a step, whichever is the slower on the whole: a
step is the norm of this order of both; fitted."""

HOST = 50e9
"""Bytes a second between a card and pinned host memory, each way."""


@dataclass(frozen=True)
class Seconds:
    """Seconds of an optimiser step on each rank, by purpose."""

    products: float
    passes: float
    attention: float
    dequantisation: float
    optimizer: float
    launches: float
    communication: float

    @property
    def step(self) -> float:
        """All of them."""
        return float(sum(getattr(self, part.name) for part in fields(self)))


def seconds(setting: Setting, card: Card, node_link: float = NODES) -> Seconds:
    """Return the seconds of an optimiser step.

    Args:
        setting: what is trained, and how.
        card: the card of each rank.
        node_link: GB/s from a card to those on other hosts.
    """
    batch = setting.batch
    of_layers, of_head = _flops(setting)
    rate = card.fp8 if setting.weights.in_fp8 and card.fp8 else card.rate
    products = (of_layers / rate + of_head / card.rate) / (1e12 * PRODUCTS)
    found = Seconds(
        products=products * batch.tokens * batch.accumulation,
        passes=_passes(setting) / (card.bandwidth * 1e12 * READS)
        * batch.tokens * batch.accumulation,
        attention=_attention(setting) / (card.rate * 1e12 * _attended(setting, card))
        * batch.tokens * batch.accumulation,
        dequantisation=_dequantised(setting) / (DEQUANTISED * card.bandwidth / 3.35)
        * batch.accumulation,
        optimizer=_optimizer(setting, card.bandwidth * 1e12 * READS),
        launches=0.0,
        communication=0.0,
    )  # fmt: skip
    both = (_called(setting) ** OVERLAP + found.step**OVERLAP) ** (1 / OVERLAP)
    found = replace(found, launches=both - found.step)
    return _with_communication(found, setting, card, node_link)


def _called(setting: Setting) -> float:
    """Return the seconds that the host takes to launch a step's kernels, whatever their size."""
    if setting.adapter is None:
        each = CALLED_FULL
    else:
        each = CALLED + CALLED_ADAPTER * len(setting.adapter.targets)
    if setting.weights.bits == 4:
        each += CALLED_4BIT * len(LINEAR)
    if setting.weights.in_fp8:
        own = CALLED_FULL_FP8 if setting.weights.trained_in_fp8 else CALLED_FP8
        each += own * len(LINEAR)
    each *= CALLED_AGAIN if setting.recomputes else 1.0
    return each * setting.shape.layers * setting.batch.accumulation


def tokens_a_second(setting: Setting, card: Card, node_link: float = NODES) -> float:
    """Return the tokens a second of all ranks together."""
    tokens = setting.batch.tokens * setting.batch.accumulation * setting.ranks.world
    return tokens / seconds(setting, card, node_link).step


def _flops(setting: Setting) -> tuple[float, float]:
    """Return the FLOPs of matrix products a token, in the layers and in the head.

    2 a weight forward, 2 for the input's gradient, and 2 for a trained weight's gradient.
    Recomputed layers take 2 more, except the down projection with the kernels for frozen weights.
    DoRA with dropout multiplies its dropped input by the weight again, forward and backward. The
    head is computed forward and backward in the forward pass; those kernels do so for labels only.
    """
    shape, own = setting.shape, setting.weights
    backward = shape.layer * setting.layers
    found = 2.0 * shape.linear + 2.0 * backward
    if own.trained:
        found += 2.0 * min(own.trained, shape.linear)
    head = 6.0 if own.trained >= shape.weights else 4.0
    head *= shape.head * (setting.batch.labelled if setting.kernels == FROZEN else 1.0)
    if setting.recomputes:
        again = shape.layer - (shape.hidden * shape.mlp if setting.kernels == FROZEN else 0)
        found += 2.0 * again * setting.layers
    if setting.adapter is not None and setting.adapter.dora and setting.adapter.drops:
        adapted = sum(inputs * outputs for inputs, outputs in _adapted(setting))
        found += (6.0 if setting.recomputes else 4.0) * adapted * setting.layers
    return found, head


def _adapted(setting: Setting) -> list[tuple[int, int]]:
    """Return the inputs and outputs of a decoder layer's linear layers that have LoRA."""
    return [setting.shape.matrices[name] for name in LINEAR if name in setting.adapted]


def _passes(setting: Setting) -> float:
    """Return the bytes a token that are read and written apart from products and attention.

    The counts are for the kernels for frozen weights: the norms with their additions 9 h forward
    and 8 h backward, rotary 2 (q + k) each way, SwiGLU 3 m and 6 m, attention 2 (q + k) and 5 q + 4
    k. Other kernels take ``LIGER`` or ``TRANSFORMERS`` times as much. For products in fp8, their
    inputs are cast: 1.5 bytes of each input forward and of each gradient backward. Where weights
    are trained, both are cast once more in another layout, and the weights too, at 3 bytes each,
    forward and backward.
    """
    shape = setting.shape
    h, q, k, m = shape.hidden, shape.queries, shape.keys, shape.mlp
    forward = 9.0 * h + 4 * (q + k) + 3 * m
    backward = 8.0 * h + 7 * q + 6 * k + 6 * m
    scores = SCORES * shape.heads * setting.batch.length if setting.attention == SCORED else 0.0
    factor = {FROZEN: 1.0, FUSED: LIGER}.get(setting.kernels, TRANSFORMERS)
    read, again = _adapters_passes(setting)
    weights = 0.0
    if setting.weights.in_fp8:
        inputs, gradients = 2 * h + q + m, 2 * h + q + 2 * k + 2 * m
        forward += 1.5 * inputs
        backward += 1.5 * gradients
        if setting.weights.trained_in_fp8:
            backward += 1.5 * gradients + inputs + 1.5 * m
            weights = 6.0 * shape.linear / setting.batch.tokens
    forward *= factor * (2.0 if setting.recomputes else 1.0)
    if setting.policy == SELECTIVE:  # norms again
        forward += 4.0 * h
    forward += read * (2 if setting.recomputes else 1)
    of_layers = setting.element * setting.layers * (forward + factor * backward + again + scores)
    return of_layers + weights + _loss_passes(setting)


def _loss_passes(setting: Setting) -> float:
    """Return the bytes a token that the loss reads and writes.

    liger-kernel's loss takes as many tokens at a time as have logits of the size of the hidden
    states, and reads and writes the gradient of a trained head each time.
    """
    shape, tokens = setting.shape, setting.batch.tokens
    if setting.kernels == FROZEN:
        return 12.0 * shape.vocabulary * setting.batch.labelled
    found = 12.0 * shape.vocabulary
    if setting.kernels == FUSED and setting.weights.trained >= shape.weights:
        part = 2 ** ceil(log2(ceil(tokens / ceil(shape.vocabulary / shape.hidden))))
        found += 2 * setting.element * shape.head * ceil(tokens / part) / tokens
    return found


def _adapters_passes(setting: Setting) -> tuple[float, float]:
    """Return the features of a token that LoRA reads and writes in a layer, in both directions.

    The kernels for frozen weights read the input of A once a group and write each output once more.
    In the backward pass they read each output's gradient twice and the input three times. PEFT does
    so for each module, with dropout and additions as passes of their own. A prefix is copied to the
    keys and values of each document.
    """
    if setting.adapter is None:
        return 0.0, 0.0
    if setting.adapter.method == "prefix":
        joined = 4.0 * setting.shape.keys * (1 + setting.adapter.tokens / setting.batch.document)
        return joined, joined
    matrices = setting.shape.matrices
    groups = setting.groups().values()
    inputs = sum(matrices[group[0]][0] for group in groups if setting.adapted & set(group))
    outputs = sum(outputs for _, outputs in _adapted(setting))
    if setting.kernels == FROZEN:
        return inputs + 2.0 * outputs, 3.0 * inputs + 2.0 * outputs
    inputs = sum(inputs for inputs, _ in _adapted(setting))
    drop = 3.0 if setting.adapter.drops else 0.0
    return (1 + drop) * inputs + 4.0 * outputs, (4 + drop) * inputs + 2.0 * outputs


def _attended(setting: Setting, card: Card) -> float:
    """Return the share of a card's rate that attention reaches."""
    one = setting.attention == DOCUMENTS and setting.document == setting.batch.length
    prefix = setting.adapter is not None and setting.adapter.method == "prefix"
    other = prefix or setting.flash or setting.element != 2
    by_row = one and setting.batch.length % LONG == 0 and not other
    return (card.rows if by_row else 0.0) or ATTENTION


def _attention(setting: Setting) -> float:
    """FLOPs of attention's scores a token: a document's token sees half of it on average.

    2 products forward and 5 backward, of 2 FLOPs; a mask hides what is computed all the same, of
    the whole row. Recomputed once more with the layer.
    """
    whole = setting.is_masked or setting.attention == SCORED
    seen = setting.document / (1 if whole else 2)
    times = (2 if setting.recomputes else 1) * 2 + 5
    return 2.0 * times * seen * setting.shape.queries * setting.layers


def _dequantised(setting: Setting) -> float:
    """Return how many 4- or 8-bit weights are dequantised in a micro-batch."""
    if not setting.weights.bits:
        return 0.0
    return setting.shape.linear * (3.0 if setting.recomputes else 2.0)


def _optimizer(setting: Setting, rate: float) -> float:
    """Return the seconds of an update, and of adding up gradients of several micro-batches.

    This package's products in half precision add gradients as they write them.

    Args:
        setting: what is trained.
        rate: bytes a second that the card reads and writes.
    """
    size = setting.weights.bytes
    own = setting.trained / setting.ranks.shards
    update = own * size * 7 / (HOST if setting.ranks.cpu_offload else rate)
    if not setting.is_gathered:
        if setting.kernels == FROZEN and not setting.weights.trained_in_fp8:
            return update
        return update + 3.0 * size * own * (setting.batch.accumulation - 1) / rate
    # float32 gradients are written, added to, cast and reduced
    return update + 16.0 * setting.trained * setting.batch.accumulation / rate


def _with_communication(found: Seconds, setting: Setting, card: Card, node_link: float) -> Seconds:
    """Return the seconds with communication between ranks.

    Layers are gathered for the forward and for the backward pass of each micro-batch (once a step
    with SHARD_GRAD_OP, never for replicas). Gradients are reduced in float32 once a step. On a link
    slower than the products, the step takes as long as the link. On a CPU, communication does not
    overlap with computation, because the same cores do both.
    """
    ranks, compute = setting.ranks, found.step
    copied, linked = 0.0, 0.0
    if ranks.uses_fsdp:
        gathered = gathered_bytes(setting) * (1 - 1 / ranks.shards)
        gradients = 4.0 * setting.trained
        group, replicas = ranks.shards, ranks.world // ranks.shards
        reduced = gradients * (1 - 1 / group)
        across = 2 * gradients / group * (1 - 1 / replicas)
        copied = (gathered + reduced + across) / COPIES
        # a ring over hosts is as fast as its slowest link
        inside = card.link if group <= max(ranks.world // ranks.hosts, 1) else node_link
        between = card.link if ranks.hosts == 1 else node_link
        linked = (gathered + reduced) / (inside * 1e9 * LINKED)
        linked += across / (between * 1e9 * LINKED)
        if ranks.cpu_offload:  # each gather begins with a copy of the rank's own shards
            linked += (gathered / max(group - 1, 1) + gradients / group) / HOST
    if setting.policy == OFFLOAD:
        tokens = setting.batch.tokens * setting.batch.accumulation
        offloaded = 2 * 2.0 * tokens * setting.shape.hidden * setting.layers / HOST
        linked = max(linked, offloaded)
    total = max(compute + (linked if setting.on_cpu else min(copied, linked)), linked)
    return replace(found, communication=total - compute)


def gathered_bytes(setting: Setting) -> float:
    """Return the bytes of the units that a rank gathers in a step, including its own shards."""
    own = setting.weights
    size = own.shared if own.bits or own.fp8 else setting.element
    layers, root = setting.shape.linear * size, setting.element * setting.shape.others
    return layers * _passes_of_layers(setting) + root * _passes_of_root(setting)


def _passes_of_layers(setting: Setting) -> int:
    """Return how often a step gathers each layer."""
    if setting.ranks.sharding == REPLICATED:
        return 0
    if setting.ranks.sharding == SHARD_GRAD_OP:
        return setting.batch.accumulation if setting.copies else 1
    return 2 * setting.batch.accumulation


def _passes_of_root(setting: Setting) -> int:
    """Return how often a step gathers the embedding, the norm and the head."""
    if setting.ranks.sharding == REPLICATED:
        return 0
    return _passes_of_layers(setting) if setting.copies else 1
