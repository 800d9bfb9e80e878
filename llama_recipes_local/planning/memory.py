"""The peak memory of a device, by part, in bytes.

The peak is that of torch: what its allocator has handed out. A process needs more in addition: a
CUDA context, NCCL's buffers, and what the allocator cannot use; see ``beside``.

In formulas, a letter is the number of features that a tensor has for each token of a micro-batch: h
(residual stream), q (queries; attention's output is as large), k (keys; values are as large) or m
(inside the MLP). Each feature takes 2 bytes.
"""

from dataclasses import dataclass, fields, replace

from llama_recipes_local.planning.setting import (
    FROZEN,
    FULL_SHARD,
    FUSED,
    OFFLOAD,
    PLAIN,
    REPLICATED,
    SCORED,
    SELECTIVE,
    SHARD_GRAD_OP,
    Setting,
    Validation,
)

GIB = 2**30
LOGITS = 1 << 28  # elements at a time, in ``kernels.vocabulary_loss``
TILE = 4096  # tokens, in ``kernels.lora.tiled_mlp``
REDUCED = 8 * (25 << 19)  # gradients of half precision at once, in ``parallel.replicas``

BITS_8, BFLOAT16 = 2, 4  # bytes of both moments of a weight
MOMENTS = {
    "adamw_8bit": BITS_8,
    "paged_adamw": 0,
    "paged_adamw_8bit": 0,
    "anyprecision": BFLOAT16,
}
"""Bytes of both moments of a weight; AdamW's are in the weight's own dtype. Paged ones are in
memory that CUDA moves to the host, which torch does not count."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by purpose.

    Attributes:
        weights: of the model.
        adapter: weights of an adapter.
        gradients: of what is trained.
        moments: the optimiser's.
        activations: kept from the forward to the backward pass.
        gathered: whole weights and gradients that FSDP holds at the peak.
        layer: what the backward pass of one layer needs in addition; 0 if the peak is at the loss.
        loss: what the loss needs; 0 if the peak is in a layer.
        validation: what a validation needs; 0 if the peak is in training.
    """

    weights: float
    adapter: float
    gradients: float
    moments: float
    activations: float
    gathered: float = 0.0
    layer: float = 0.0
    loss: float = 0.0
    validation: float = 0.0

    @property
    def peak(self) -> float:
        """Bytes that torch has allocated at the peak."""
        return float(sum(getattr(self, part.name) for part in fields(self)))

    @property
    def passing(self) -> float:
        """Bytes of the peak that are allocated and freed in each step."""
        return self.activations + self.gathered + self.layer + self.loss + self.validation

    @property
    def gib(self) -> float:
        """The peak in GiB."""
        return self.peak / GIB

    def parts(self) -> dict[str, float]:
        """Return the GiB of each part, without those below 5 MiB."""
        found = {part.name: getattr(self, part.name) / GIB for part in fields(self)}
        return {name: size for name, size in found.items() if size >= 0.005}


def memory(setting: Setting) -> Memory:
    """Return the peak memory of each device for a setting.

    The peak may be at the loss, in the backward pass of the last layer, in that of the first layer,
    or in a validation; all four are compared. If a step has one micro-batch, it starts without
    gradients except those of the head, and gradients appear while activations are freed.
    """
    offloaded = setting.ranks.cpu_offload
    inputs, one_layer = _activations(setting)
    fixed = Memory(
        weights=0.0 if offloaded else _weights(setting),
        adapter=0.0 if offloaded else _adapter(setting),
        gradients=_gradients(setting),
        moments=0.0 if offloaded else _moments(setting),
        activations=inputs,
    )
    root, units = _gathered(setting)
    at_loss = replace(fixed, gathered=root, loss=_loss(setting))
    in_layer = replace(fixed, gathered=root + units, layer=one_layer + _workspace(setting))
    found = [at_loss, in_layer]
    if setting.batch.accumulation == 1 and not _has_buckets(setting):
        found = [
            replace(at_loss, gradients=0.0),
            replace(in_layer, gradients=min(fixed.gradients, _gradient_of_head(setting))),
            _in_first_layer(setting, in_layer),
        ]
    if setting.validation is not None:
        found.append(_validated(setting, setting.validation, replace(in_layer, gradients=0.0)))
    return max(found, key=lambda each: each.peak)


def _in_first_layer(setting: Setting, in_last: Memory) -> Memory:
    """Return the memory at the end of a backward pass, when gathered weights are sharded again."""
    inputs = in_last.activations / max(setting.layers, 1)
    ranks = setting.ranks
    if ranks.sharding == SHARD_GRAD_OP:
        ranks = replace(ranks, sharding=FULL_SHARD)
    gathered = sum(_gathered(replace(setting, ranks=ranks)))
    return replace(in_last, activations=inputs, gathered=gathered)


def _validated(setting: Setting, validation: Validation, fixed: Memory) -> Memory:
    """Return the peak of a validation, which keeps no activations and no gradients.

    It is reached in a layer, at the loss, or in the cache of keys and values of answers.
    """
    shape = setting.shape
    features = 3.0 * (shape.hidden + max(shape.mlp, shape.queries + shape.keys))
    if setting.attention == SCORED:  # before and after softmax, in both dtypes
        features += 5.0 * shape.heads * setting.batch.length
    cache = 2.0 * validation.answered * shape.keys * shape.layers
    batch = replace(setting.batch, rows=1, length=validation.tokens)
    most = max(
        setting.element * validation.tokens * features,
        _loss(replace(setting, batch=batch)),
        setting.element * cache,
    )
    return replace(fixed, activations=0.0, layer=0.0, validation=most)


def loading(setting: Setting) -> float:
    """Return the bytes of a device while a model loads: it is quantised before it is sharded."""
    if not setting.weights.bits:
        return 0.0
    return setting.shape.linear * setting.weights.of_linear + setting.shape.others * 2.0


def beside(setting: Setting) -> float:
    """Return the bytes of a device outside torch's peak, rounded up as a precaution.

    These are 0.5 GiB of CUDA context, which is not subtracted from a card's usable memory; with
    several ranks about 1 GiB of NCCL's buffers; and 3% of what is allocated and freed in each step,
    for fragmentation of the allocator.
    """
    context, nccl = 0.5 * GIB, GIB if setting.ranks.world > 1 else 0.0
    return context + nccl + 0.03 * memory(setting).passing


def _weights(setting: Setting) -> float:
    """Bytes of the model's weights that stay on a device; a tied head is the embedding.

    Of float32 weights autocast keeps a copy in half precision: of trained ones over a step, of
    frozen ones from a layer's forward to its backward pass.
    """
    shape, own = setting.shape, setting.weights
    shards = setting.ranks.shards
    casts = 0.0
    if _is_cast(setting) and not setting.is_gathered:
        frozen = 0 if own.trained else shape.layer * (1 if setting.recomputes else setting.layers)
        casts = 2.0 * (own.trained + frozen)
    scales = shape.linear * (own.of_linear - own.shared)  # not sharded: they are no parameters
    kept = (shape.linear * own.shared + shape.others * own.bytes) / shards
    return kept + scales + casts


def _is_cast(setting: Setting) -> bool:
    """Return whether autocast computes in half precision with weights in float32."""
    return setting.weights.bytes == 4 and setting.element == 2


def _adapter(setting: Setting) -> float:
    if setting.adapter is None:
        return 0.0
    return setting.adapter.weights(setting.shape) * setting.adapter.bytes / setting.ranks.shards


def _by_dtype(setting: Setting) -> list[tuple[int, int]]:
    """Return the number of trained weights and the bytes of each."""
    found = [(setting.weights.trained, setting.weights.bytes)]
    if setting.adapter is not None:
        found.append((setting.adapter.weights(setting.shape), setting.adapter.bytes))
    return found


def _gradients(setting: Setting) -> float:
    """Return the bytes of gradients between backward pass and update.

    With DDP, the gradients are its buckets. FSDP2 keeps whole gradients from one micro-batch to the
    next, in float32, the dtype that it reduces them in. In the last micro-batch they become each
    rank's shard, layer by layer, in the weights' dtype.
    """
    own = sum(number * size for number, size in _by_dtype(setting)) / setting.ranks.shards
    if setting.ranks.cpu_offload:
        own = 0.0
    if setting.is_gathered and setting.batch.accumulation > 1:
        return max(own, 4.0 * setting.trained)
    return own


def _has_buckets(setting: Setting) -> bool:
    """Return whether gradients are DDP's buckets, which stay from one step to the next."""
    ranks = setting.ranks
    return ranks.world > 1 and ranks.sharding == REPLICATED and not setting.is_gathered


def _gradient_of_head(setting: Setting) -> float:
    return 2.0 * setting.shape.head if setting.weights.trained >= setting.shape.weights else 0.0


def _moments(setting: Setting) -> float:
    found = 0.0
    for number, size in _by_dtype(setting):
        found += number * MOMENTS.get(setting.optimizer, 2 * size)
    return found / setting.ranks.shards


def _gathered(setting: Setting) -> tuple[float, float]:
    """Return the bytes that FSDP2 has gathered at the loss, and in a layer's backward pass beside.

    The embedding and the head are a unit, which stays from the forward to the backward pass. A
    decoder layer is one: the one that is computed and the next one, which is fetched meanwhile.
    Without resharding, and in replicas where FSDP2 copies them, every layer stays from the forward
    pass on. A trained layer's gradients are cast to float32 and reduced while the next one's are
    made. 4-bit weights are gathered as they are, and replicas of them are left alone. DDP averages
    some gradients of half precision at a time in float32.
    """
    if not setting.is_gathered:
        half = sum(number for number, size in _by_dtype(setting) if size == 2)
        reduced = 4.0 * min(half, max(REDUCED, setting.shape.layer))
        return 0.0, reduced if _has_buckets(setting) else 0.0
    shape, own = setting.shape, setting.weights
    size = own.shared if own.bits or own.fp8 else setting.element
    layer = shape.layer * size
    stays = setting.ranks.sharding in (REPLICATED, SHARD_GRAD_OP)
    if own.bits and setting.ranks.sharding == REPLICATED:
        layer = 0.0
    root = setting.element * shape.others + (shape.layers * layer if stays else 0.0)
    reduced = 4.0 * shape.layer if own.trained >= shape.layer else 0.0
    return root, reduced + (0.0 if stays else 2 * layer)


def _activations(setting: Setting) -> tuple[float, float]:
    """Return the bytes kept for the backward pass, and those of one layer in it.

    With recomputation, each layer's input is kept and one layer at a time is computed again. With
    offloading, the inputs are in host memory, except for two.
    """
    layers = setting.layers
    tokens = setting.batch.tokens
    stream = setting.element * tokens * setting.shape.hidden
    whole = setting.element * tokens * _kept(setting) if layers else 0.0
    if setting.policy == OFFLOAD:
        return min(2, layers) * stream, whole
    if setting.recomputes:
        return layers * stream, whole
    if setting.policy == SELECTIVE:
        some = setting.element * tokens * _kept_selectively(setting)
        return layers * some, whole - some
    return layers * whole, 0.0


def _kept(setting: Setting) -> float:
    """Features that a layer keeps of a token, in units of 2 bytes.

    Attention keeps queries, keys, values, its output and 4 bytes a head. With a mask, or with
    scores, keys and values are copied for each head; the mask is kept in the layer's own dtype, the
    scores in float32 and in that. What an adapter reads is kept too, see ``_read_by_adapters``.

    - This package's kernels: the residual stream before each norm; gate and up, but for a frozen
      layer that is recomputed; where weights are trained both norms' outputs, in fp8 these and what
      o reads once more, a byte each.
    - liger-kernel: the residual stream, gate and up; where weights are trained, what they read:
      both norms' outputs and the MLP's activation.
    - transformers: norms keep their input in float32; gate, its activation, and up.
    """
    shape = setting.shape
    h, q, k, m = shape.hidden, shape.queries, shape.keys, shape.mlp
    k = q if setting.repeats_keys else k
    attention = 2 * q + 2 * k + 2 * shape.heads
    if setting.is_masked:
        attention = 4 * q + 2 * shape.heads + setting.batch.length
    if setting.attention == SCORED:
        attention = 4 * q + 3 * shape.heads * setting.batch.length
    read = _read_by_adapters(setting)
    if setting.adapter is not None and setting.adapter.method == "prefix":  # joined to the keys
        read += 2 * k * setting.adapter.tokens / setting.batch.document
    if setting.adapter is not None and setting.adapter.method == "llama_adapter":
        read += q / 2
    trained = _read_by_trained(setting)
    if setting.kernels == PLAIN:
        norms = 4 * h if setting.element == 2 else 2 * h
        return norms + 3 * m + attention + read + trained + (2 * h if trained else 0)
    return 2 * h + (0 if setting.has_tiles else 2 * m) + attention + read + trained


def _kept_selectively(setting: Setting) -> float:
    """Return the features kept of a token if the norms' outputs are computed again."""
    norms = _inputs_read(setting) if setting.kernels == FROZEN else 0.0
    return _kept(setting) - norms * setting.shape.hidden


def _read_by_trained(setting: Setting) -> float:
    """Features of a token that are kept because trained weights read them, in units of 2 bytes.

    Of weights in float32 both norms' inputs and outputs are in float32 too, and each linear layer
    keeps its own copy of what it reads.
    """
    shape, own = setting.shape, setting.weights
    if not own.trained:
        return 0.0
    if setting.kernels != FROZEN:
        return (7.0 if _is_cast(setting) else 2.0) * shape.hidden + shape.mlp
    return shape.hidden + shape.queries / 2 if own.trained_in_fp8 else 2.0 * shape.hidden


def _read_by_adapters(setting: Setting) -> float:
    """Return the features of a token that LoRA keeps of its inputs, in units of 2 bytes.

    The kernels for frozen weights keep one input for q, k and v and one for gate and up. Attention
    has kept the input of o already, and the input of down and dropout are computed again. PEFT's
    modules each keep their own copy after dropout, and a mask of a byte an element; without dropout
    they share an input, and only that of down is not kept elsewhere. With DoRA they also keep the
    outputs of the weight and of LoRA, by which the gradient of the magnitude is computed.
    """
    if setting.adapter is None or not setting.adapted:
        return 0.0
    shape, rank = setting.shape, setting.adapter.rank
    low = float(rank * len(setting.adapted))
    if setting.kernels == FROZEN:
        return low + shape.hidden * _inputs_read(setting)
    if setting.adapter.dora:
        low += 2.0 * sum(shape.matrices[name][1] for name in setting.adapted)
    if setting.adapter.drops:
        return low + sum(1.5 * shape.matrices[name][0] for name in setting.adapted)
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",)):
        if setting.adapted & set(group):
            low += shape.matrices[group[0]][0]
    return low


def _inputs_read(setting: Setting) -> float:
    """Return how many of a layer's two norms have an output that adapters or trained weights read.

    An output in fp8 counts as half.
    """
    if setting.weights.trained:
        return 1.0 if setting.weights.trained_in_fp8 else 2.0
    both = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
    return sum(bool(setting.adapted & set(group)) for group in both)


def _workspace(setting: Setting) -> float:
    """Return the bytes that the backward pass of one layer needs in addition to what was kept.

    These are the gradients of the residual stream, twice, and the larger of two parts: the
    gradients of gate, up and what down reads (liger-kernel writes them over their inputs), or those
    of attention's inputs and output. In tiles, gate, up and the gradient of what down reads exist
    for some tokens only. The dequantised weight of the largest linear layer is added, with tiles
    that of the whole MLP. DoRA's matrices, see ``_norms_of_dora``, count if they are larger than
    these gradients.
    """
    shape, tokens = setting.shape, setting.batch.tokens
    wide = 1 if setting.kernels == FUSED else 3
    if setting.weights.trained_in_fp8:  # gradients and what they are multiplied with, a byte each
        wide += 1
    of_mlp = wide * shape.mlp * (min(tokens, TILE) if setting.has_tiles else tokens)
    of_attention = 2 * (shape.queries + shape.keys) * tokens
    if setting.attention == SCORED:  # gradients of scores, before and after softmax, in float32
        of_attention += 4 * shape.heads * setting.batch.length * tokens
    gradients = setting.element * (max(of_mlp, of_attention) + 2 * shape.hidden * tokens)
    dequantised = 0.0
    if setting.weights.bits or setting.weights.in_fp8:
        mlp = shape.hidden * shape.mlp
        dequantised = 2.0 * (3 * mlp if setting.has_tiles else max(mlp, shape.hidden**2))
    return max(gradients, _norms_of_dora(setting)) + dequantised


def _norms_of_dora(setting: Setting) -> float:
    """Return the bytes of the matrices that DoRA makes for the largest adapted layer."""
    if setting.adapter is None or not setting.adapter.dora:
        return 0.0
    sizes = [setting.shape.matrices[name] for name in setting.adapted]
    return max((2.0 * (inputs + 4 * outputs) * inputs for inputs, outputs in sizes), default=0.0)


def _loss(setting: Setting) -> float:
    """Return the bytes of the loss at its largest.

    - This package's: twice the hidden states of positions with a label, and at most 2**28 logits in
      bfloat16, which become their gradients in place; the gradient of a trained head.
    - liger-kernel's: logits of some positions, about as large as the hidden states, in bfloat16 and
      float32; the gradients of the hidden states and of a trained head.
    - transformers': all logits in bfloat16 and in float32, their log-softmax and its gradient.
    """
    shape, tokens = setting.shape, setting.batch.tokens
    stream = setting.element * tokens * shape.hidden
    if setting.kernels == PLAIN:
        return tokens * shape.vocabulary * 12.0 + 2 * stream
    if setting.kernels == FUSED:
        head = 2.0 * shape.head if setting.weights.trained else 0.0
        return 2 * stream + 3 * stream + head
    logits = tokens * setting.batch.labelled * shape.vocabulary
    at_a_time = 2.0 * min(LOGITS, logits)
    passing = 2 * stream + 2 * stream * setting.batch.labelled + at_a_time
    return _gradient_of_head(setting) + passing
