"""Prefix tuning on packed and padded rows, with activation checkpointing and with FSDP2.

PEFT passes a prefix to the model as a cache of keys and values. A cache does not work with
activation checkpointing, which drops it, nor with packed rows, whose documents it mixes up. Here
the same keys and values are arguments of this package's attention; see ``kernels.attention``. The
parameters and the saved files are PEFT's, and a loaded adapter generates as in PEFT.
"""

from typing import Any

import peft
import torch

from llama_recipes_local.data.documents import document_bounds
from llama_recipes_local.kernels.attention import NAME
from llama_recipes_local.kernels.prefix import Prefix
from llama_recipes_local.library_patches import PREFIX

PARAMETER = "prompt_encoder.default.embedding.weight"


def install(adapted: peft.PeftModel) -> None:
    """Compute a model's prefix with this package's attention."""
    PREFIX.check()
    adapted.__class__ = PrefixTunedModel


class PrefixTunedModel(peft.PeftModelForCausalLM):
    """A causal language model with a prefix to train."""

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        max_length_q: int | None = None,
        **kwargs: object,
    ) -> Any:
        """Compute the model with the prefix before every document.

        Positions start after the prefix, as they do after a cache.

        Args:
            input_ids: (batch, seq).
            attention_mask: (batch, seq), 0 where a row is padded; None for packed rows.
            position_ids: (batch, seq), restarting at each document; None if each row is one.
            cu_seq_lens_q: (documents + 1,) int32, the offset of each document, and the total.
            max_length_q: tokens in the longest document.
            **kwargs: for the model.

        Raises:
            ValueError: if the model's attention is another package's.
        """
        base: Any = self.get_base_model()
        if base.config._attn_implementation != NAME:
            raise ValueError(f"prefix tuning needs attn_implementation={NAME!r}")
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
            position_ids = position_ids.expand(input_ids.shape)
        if cu_seq_lens_q is None or max_length_q is None:
            cu_seq_lens_q, max_length_q = document_bounds(position_ids)
        keys, values = self._keys_and_values()
        # the attention computes the bounds of the keys, which include the prefix
        kwargs.pop("cu_seq_lens_k", None)
        kwargs.pop("max_length_k", None)
        return base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids + keys.shape[2],
            prefix=Prefix(keys, values, cu_seq_lens_q, max_length_q, input_ids.numel()),
            **kwargs,
        )

    def _keys_and_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both as (layers, kv_heads, virtual tokens, head_dim), as PEFT lays them out."""
        config: Any = self.active_peft_config
        encoder: Any = self.prompt_encoder[self.active_adapter]
        heads = config.num_attention_heads
        weight = encoder.embedding.weight
        split = weight.view(len(weight), config.num_layers, 2, heads, config.token_dim // heads)
        keys, values = split.permute(2, 1, 3, 0, 4)
        return keys, values

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str, state_dict: dict[str, torch.Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save the adapter from ``state_dict``, which PEFT ignores for a prefix."""
        self._to_save = (state_dict or self.state_dict())[PARAMETER]
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        del self._to_save

    def get_prompt_embedding_to_save(self, adapter_name: str) -> torch.Tensor:
        """Return the full prefix; the model's own parameter may be a shard."""
        return self._to_save.detach().cpu()
