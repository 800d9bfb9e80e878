"""A prefix of learned keys and values that every document attends to.

The variable-length kernel attends within contiguous documents, so the prefix is copied in front of
each: one gather of ``documents * virtual + tokens`` rows per layer. Attending to the prefix apart
and joining the two softmaxes would copy nothing, but needs each call's log-sum-exp with a gradient,
which torch's kernels do not return.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F


@dataclass
class Prefix:
    """Keys and values of all layers, and the documents that they are put in front of.

    It is a plain dataclass on purpose: FSDP2 does not search it for tensors. Each layer gets the
    prefixes of all layers, and must not wait for the gradients of the others.

    Attributes:
        keys: (layers, kv_heads, virtual tokens, head_dim), without rotary positions.
        values: (layers, kv_heads, virtual tokens, head_dim).
        bounds: (documents + 1,) int32, the offset of each document in the concatenated rows, and
            the total number of tokens.
        longest: tokens in the longest document.
        tokens: tokens in all rows.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bounds: torch.Tensor
    longest: int
    tokens: int

    @property
    def length(self) -> int:
        """Virtual tokens."""
        return self.keys.shape[2]

    @cached_property
    def key_bounds(self) -> torch.Tensor:
        """Offsets of the documents with their prefixes, and the total: (documents + 1,) int32."""
        prefixes = torch.arange(len(self.bounds), device=self.bounds.device, dtype=torch.int32)
        return self.bounds + prefixes * self.length

    @cached_property
    def _order(self) -> torch.Tensor:
        """Indices into all prefixes followed by all tokens, in the order of attention.

        (documents * virtual tokens + tokens,) int64, computed without waiting for the device.
        """
        device = self.bounds.device
        virtual = torch.arange(self.length, device=device)
        of_prefixes = (self.key_bounds[:-1, None] + virtual).flatten()
        tokens = torch.arange(self.tokens, device=device, dtype=torch.int32)
        document = torch.searchsorted(self.bounds[1:], tokens, right=True)
        of_tokens = tokens + (document + 1) * self.length
        places = torch.cat([of_prefixes, of_tokens])
        order = torch.empty_like(places)
        order[places] = torch.arange(len(places), device=device)
        return order

    def before_documents(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the layer's prefix in front of each document.

        Args:
            layer: the layer's index.
            key: (tokens, kv_heads, head_dim).
            value: (tokens, kv_heads, head_dim).

        Returns:
            Both as (tokens + documents * virtual tokens, kv_heads, head_dim); see ``key_bounds``.
        """
        documents = len(self.bounds) - 1
        laid = []
        for prefix, own in ((self.keys[layer], key), (self.values[layer], value)):
            copies = prefix.to(own.dtype).transpose(0, 1).expand(documents, -1, -1, -1)
            # index_select reads each row once, so no gradients are summed there; those of the
            # copies are summed by ``expand``, which does not round in bfloat16
            laid.append(torch.cat([copies.flatten(0, 1), own]).index_select(0, self._order))
        return laid[0], laid[1]

    def before_rows(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Put the layer's prefix in front of each row of a padded batch.

        Args:
            layer: the layer's index.
            key: (batch, kv_heads, seq, head_dim).
            value: (batch, kv_heads, seq, head_dim).
            mask: (batch, 1, seq, seq) bool, true where a query sees a key.

        Returns:
            All three with the virtual tokens in front of the keys, seen by every query.
        """
        key, value = (
            torch.cat([prefix.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
            for prefix, own in ((self.keys[layer], key), (self.values[layer], value))
        )
        return key, value, F.pad(mask, (self.length, 0), value=True)
