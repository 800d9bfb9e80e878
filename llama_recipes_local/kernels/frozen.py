"""A Llama in fewer passes over memory: frozen, with or without an adapter, or trained.

Its parts are computed by ``lora.projections`` (by ``full`` where weights are trained), ``norm``,
``rotary`` and ``vocabulary_loss``, which keep less for the gradients than autograd does. Of each
layer they keep the residual stream, the inputs of adapters and of trained weights, queries, keys
and values, and the outputs of gate and up.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

from llama_recipes_local.kernels import rotated_attention
from llama_recipes_local.kernels.base import ModelKernel
from llama_recipes_local.kernels.full import trained_layers
from llama_recipes_local.kernels.full.chosen_layers import computes, read_trained
from llama_recipes_local.kernels.full.trained_layers import Trained
from llama_recipes_local.kernels.labelled_rows import labelled, put, take
from llama_recipes_local.kernels.lora import projections
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.layers import Computed, read
from llama_recipes_local.kernels.lora.tiled_mlp import tiled_mlp
from llama_recipes_local.kernels.norm import NormOf, add_and_norm
from llama_recipes_local.kernels.rotary import rotate
from llama_recipes_local.kernels.vocabulary_loss import vocabulary_loss
from llama_recipes_local.library_patches import DECODER_LAYER

SEEDS = 2**31 - 1
Projection = Callable[[torch.Tensor, NormOf | None], tuple[torch.Tensor, ...]]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def install(model: nn.Module) -> str:
    """Replace forward passes of a Llama, and return in words what was replaced.

    Each new forward pass calls the former one where it does not apply: with a cache, or for a layer
    that ``chosen_layers`` and ``layers`` do not accept.

    Raises:
        TargetMissingError: if transformers' layer does not have the parts that are replaced here.
    """
    DECODER_LAYER.check()
    for module in model.modules():
        if isinstance(module, modeling_llama.LlamaDecoderLayer):
            _replace(module.self_attn, _attention)
            _replace(module.mlp, partial(_mlp, module))
            if type(module) is modeling_llama.LlamaDecoderLayer:
                module.__class__ = NormedDecoderLayer
        elif isinstance(module, modeling_llama.LlamaModel):
            _replace(module.norm, _norm)
            last: Any = module.layers[-1]
            last.is_last = True
        elif isinstance(module, modeling_llama.LlamaForCausalLM):
            _replace(module, _causal_lm)
    return "linear layers, MLP, RMSNorm, rotary embedding and the loss, by Triton"


def fallbacks(model: nn.Module) -> dict[str, int]:
    """Return the reasons why linear layers are not computed here, with the number of layers."""
    layers = (module._modules.get(name) for module in model.modules() for name in LINEAR)
    reasons = (read(layer) for layer in layers if layer is not None and not computes(layer))
    return dict(Counter(reason for reason in reasons if isinstance(reason, str)))


def _replace(module: Any, forward: Callable[..., Any]) -> None:
    module.forward = partial(forward, module, module.forward)


def _attention(
    module: Any,
    before: Callable[..., Any],
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    made_of: NormOf | None = None,
    rows_read: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute a layer's attention as transformers does, with q, k and v as one function.

    Args:
        module: the ``LlamaAttention``.
        before: the former forward pass, without these kernels.
        hidden_states: (batch, seq, hidden).
        position_embeddings: cosines and sines of the positions.
        attention_mask: for the attention implementation.
        past_key_values: None in training.
        made_of: what the hidden states are the norm of, if known.
        rows_read: (rows,), those of the output that are read; None means all.
        **kwargs: for the attention implementation.

    Returns:
        (batch, seq, hidden), or (1, rows, hidden) of the rows that are read; and the scores if the
        implementation returns them.
    """
    inputs = _projection((module.q_proj, module.k_proj, module.v_proj), hidden_states)
    output = _projection((module.o_proj,), hidden_states)
    cached = past_key_values is not None
    if inputs is None or output is None or position_embeddings is None or cached:
        out, scores = before(
            hidden_states=hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
        return take(out, rows_read), scores
    attended, scores = _attended(
        module, inputs(hidden_states, made_of), position_embeddings, attention_mask, kwargs
    )
    (out,) = output(take(attended, rows_read), None)
    return out, scores


def _attended(
    module: Any,
    projected: tuple[torch.Tensor, ...],
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rotate and attend; return (batch, seq, heads * head_dim), and the scores if there are any.

    Args:
        module: the ``LlamaAttention``.
        projected: queries, (batch, seq, heads * head_dim), keys and values, (batch, seq, kv_heads *
            head_dim).
        position_embeddings: cosines and sines of the positions.
        attention_mask: for the attention implementation.
        kwargs: further arguments of the attention implementation.
    """
    if rotated_attention.applies(module, projected[0], attention_mask, kwargs):
        documents = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
        attended = rotated_attention.attend(
            projected, position_embeddings, documents, module.head_dim, module.scaling
        )
        return attended, None
    shape = projected[0].shape[:-1]
    query, key, value = (x.view(*shape, -1, module.head_dim) for x in projected)
    query, key = rotate(query, key, *position_embeddings)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, modeling_llama.eager_attention_forward
    )
    attended, scores = attend(
        module,
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attention_mask,
        dropout=module.attention_dropout if module.training else 0.0,
        scaling=module.scaling,
        **kwargs,
    )
    return attended.reshape(*shape, -1), scores


def _projection(modules: tuple[nn.Module, ...], x: torch.Tensor) -> Projection | None:
    """Return the function for layers with the same input; None if one is not computed here."""
    trained = _trained(modules, x)
    if trained is not None:
        return lambda x, made_of: trained_layers.project(x, trained, made_of)
    computed = _computed(modules, x)
    if not computed:
        return None
    return lambda x, made_of: projections.project(x, *_arguments(computed), made_of)


def _mlp(
    layer: Any,
    module: Any,
    before: Callable[..., torch.Tensor],
    x: torch.Tensor,
    made_of: NormOf | None = None,
) -> torch.Tensor:
    """Compute the ``LlamaMLP`` of a layer, (batch, seq, hidden) both; see ``_attention``."""
    inputs, output = (module.gate_proj, module.up_proj), (module.down_proj,)
    trained = _trained(inputs, x), _trained(output, x)
    if trained[0] is not None and trained[1] is not None:
        return trained_layers.mlp(x, trained[0], trained[1], made_of)
    gate_up, down = _computed(inputs, x), _computed(output, x)
    if not gate_up or not down:
        return before(x)
    layers, dropout = _arguments(gate_up)
    (last,), last_dropout = _arguments(down)
    dropouts = dropout, last_dropout
    if (layer.training and layer.gradient_checkpointing) or not torch.is_grad_enabled():
        return tiled_mlp(x, layers, last, dropouts)  # type: ignore[arg-type]
    return projections.mlp(x, layers, last, dropouts, made_of)  # type: ignore[arg-type]


def _norm(
    module: Any, before: Callable[..., torch.Tensor], hidden_states: torch.Tensor
) -> torch.Tensor:
    """Compute the last ``LlamaRMSNorm``, (batch, seq, hidden) both, without copies in float32."""
    if _is_own(module, hidden_states):
        return before(hidden_states)
    return add_and_norm(hidden_states, None, module.weight, module.variance_epsilon)[1]


def _is_own(norm: Any, x: torch.Tensor) -> bool:
    """Return whether a norm's own module computes it for ``x``."""
    return norm.weight.dtype != x.dtype or not _in_half(x)


class NormedDecoderLayer(modeling_llama.LlamaDecoderLayer):
    """A Llama's layer that computes its norms together with the additions before them.

    It is a class, not a replaced method, because transformers checkpoints activations only in
    subclasses of its layer.

    Attributes:
        remakes_norms: whether the norms' outputs, which adapters read, are recomputed in the
            backward pass instead of kept.
        is_last: whether nothing but the last norm and the head reads its output.
    """

    remakes_norms = False
    is_last = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        rows_read: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the next hidden states, (batch, seq, hidden) both.

        Args:
            hidden_states: of the layer before.
            *args: as transformers' layer takes them.
            rows_read: (rows,), those of the last layer's output that are read; others are 0.
            **kwargs: as transformers' layer takes them.
        """
        norms: list[Any] = [self.input_layernorm, self.post_attention_layernorm]
        if args or any(_is_own(norm, hidden_states) for norm in norms):
            return super().forward(hidden_states, *args, **kwargs)
        before, after = ((norm.weight, norm.variance_epsilon) for norm in norms)
        # a LLaMA-Adapter wraps the attention, and adds to all rows of its output
        picks = self.is_last and isinstance(self.self_attn, modeling_llama.LlamaAttention)
        again, rows = self.remakes_norms, rows_read if picks else None
        stream, normed, made_of = add_and_norm(hidden_states, None, *before)
        attended, _ = self.self_attn(
            hidden_states=normed, made_of=made_of if again else None, rows_read=rows, **kwargs
        )
        stream, normed, made_of = add_and_norm(take(stream, rows), attended, *after)
        out = stream + self.mlp(normed, made_of if again else None)
        return put(out, rows, hidden_states.shape)


def remake_norms(model: nn.Module, again: bool = True) -> int:
    """Recompute the norms' outputs in a model's layers, or keep them; return how many layers."""
    layers = [module for module in model.modules() if isinstance(module, NormedDecoderLayer)]
    for layer in layers:
        layer.remakes_norms = again
    return len(layers)


def _causal_lm(module: Any, before: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Compute a ``LlamaForCausalLM``; in training the loss without logits. See ``_attention``."""
    head = module.lm_head
    plain = type(head) is nn.Linear and head.bias is None and _is_computed(head.weight)
    counted = kwargs.get("labels") is not None and kwargs.get("num_items_in_batch") is not None
    chosen = args or "logits_to_keep" in kwargs or kwargs.get("return_dict") is False
    if not (module.training and plain and counted) or chosen:
        return before(*args, **kwargs)
    found, items = labelled(kwargs.pop("labels")), kwargs.pop("num_items_in_batch")
    kwargs.pop("return_dict", None)
    outputs = module.model(**kwargs, rows_read=found.rows)
    hidden = outputs.last_hidden_state
    weight = head.weight.to(hidden.dtype)
    loss = vocabulary_loss(hidden, weight, found, items, getattr(module, "token_losses", None))
    return CausalLMOutputWithPast(loss=loss, past_key_values=outputs.past_key_values)


def _is_computed(head: torch.Tensor) -> bool:
    """Return whether the loss of a head is computed here.

    The gradient of a trained head is summed before it is divided by the number of labels, which
    overflows in float16. A head in float32 is left to autocast.
    """
    return not head.requires_grad or not head.is_cuda or head.dtype == torch.bfloat16


def _trained(modules: tuple[nn.Module, ...], x: torch.Tensor) -> Trained | None:
    """Return trained layers that read ``x``; None if they are not computed here."""
    return read_trained(modules, x) if _in_half(x) else None


def _computed(modules: Iterable[nn.Module], x: torch.Tensor) -> list[Computed]:
    """Return layers with the same input; none if one of them is not computed here."""
    if not _in_half(x):
        return []
    found = []
    for module in modules:
        computed = read(module)
        if isinstance(computed, str) or computed.dtype not in (None, x.dtype):
            return []
        found.append(computed)
    return found


def _in_half(x: torch.Tensor) -> bool:
    """Return whether the kernels accept a tensor: on CUDA only half precision, on a CPU any."""
    return not x.is_cuda or x.dtype in (torch.bfloat16, torch.float16)


def _arguments(computed: list[Computed]) -> tuple[tuple[projections.Layer, ...], Dropout]:
    """Return the layers and the dropout of their adapters; its seed is drawn in host memory."""
    share = max(each.dropout for each in computed)
    seed = int(torch.randint(SEEDS, ())) if share else 0
    return tuple(each.layer for each in computed), Dropout(share, seed)


KERNEL = ModelKernel(
    title="Layer kernels",
    flag="use_fast_kernels",
    replaces="a Llama's linear layers, with LoRA or trained, MLP, norms and loss",
    device="cuda",
    package="triton",
    install=install,
)
