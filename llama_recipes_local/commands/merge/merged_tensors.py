"""The merged model's tensors, by PEFT's own ``merge`` of one layer at a time."""

from collections.abc import Mapping

import torch

from llama_recipes_local.adapters.compatibility import PEFT_PREFIX, base_name
from llama_recipes_local.commands.merge.base_tensors import BaseTensors
from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.models.embedding_rows import with_mean_rows

Tensors = dict[str, torch.Tensor]


class MergedTensors:
    """The merged model's tensors, each computed when it is read.

    Attributes:
        planned: meta tensors of their shapes and dtypes, by name.
        tied: whether the merged model's head is its embedding; then ``planned`` has no head.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        base: BaseTensors,
        adapter: Mapping[str, torch.Tensor],
    ) -> None:
        """Find what each tensor is computed from.

        Args:
            skeleton: the adapted model without weights.
            base: the base model's tensors.
            adapter: the adapter's tensors.
        """
        self._skeleton = skeleton
        self._base = base
        self._adapter = adapter
        self._tied_to = {skeleton.head: skeleton.embedding} if skeleton.tied else {}
        self._made: tuple[str, Tensors] = ("", {})
        self.tied = skeleton.tied and self._still_tied()
        self.planned = {
            name: torch.empty(shape, dtype=base.dtype(self._stored_name(name)), device="meta")
            for name, shape in skeleton.shapes.items()
            if not (self.tied and name == skeleton.head)
        }

    def __call__(self, name: str) -> torch.Tensor:
        """Return a tensor of the merged model, in the base model's dtype."""
        layer = self._skeleton.layer_of(name)
        if layer is None:
            return self._start(name)
        if self._made[0] != layer:
            self._made = (layer, self._merge(layer))
        return self._made[1][name].to(self._base.dtype(self._stored_name(name)))

    @torch.no_grad()
    def _merge(self, path: str) -> Tensors:
        """Load the weights into a copy of a PEFT layer, merge it, and return the plain layer's."""
        layer = self._skeleton.layer(path)
        weights = {
            name: self._load(f"{PEFT_PREFIX}{path}.{name}") for name, _ in layer.named_parameters()
        }
        layer.load_state_dict(weights, strict=False, assign=True)
        if hasattr(layer, "unload_and_optionally_merge_module"):
            plain = layer.unload_and_optionally_merge_module(
                merge=True, safe_merge=False, adapter_names=None
            )
        else:
            layer.merge()
            plain = layer.get_base_layer()
        return {f"{path}.{name}": tensor for name, tensor in plain.state_dict().items()}

    def _load(self, parameter: str) -> torch.Tensor:
        """Return a parameter of the adapted model; the adapter's are float32, as in PEFT."""
        name = base_name(parameter)
        if name in self._skeleton.bases:
            return self._start(name)
        tensor = self._adapter[self._skeleton.sources[parameter]]
        return tensor.float() if tensor.is_floating_point() else tensor

    def _start(self, name: str) -> torch.Tensor:
        """Return a tensor that the adapter's change is added to, in the base model's dtype.

        It is the base model's, or the adapter's replacement of it.
        """
        key = self._skeleton.sources.get(self._skeleton.bases[name])
        if key is not None:
            return self._adapter[key].to(self._base.dtype(self._stored_name(name)))
        if name in self._base and self._skeleton.has_new_rows(name):
            return with_mean_rows(self._base[name], self._skeleton.vocabulary)
        if name in self._base:
            return self._base[name]
        return self._start(self._tied_to[name])

    def _stored_name(self, name: str) -> str:
        return name if name in self._base else self._tied_to[name]

    def _still_tied(self) -> bool:
        """Return whether head and embedding are equal after the merge."""
        head, embedding = self(self._skeleton.head), self(self._skeleton.embedding)
        if self._skeleton.tied_by_peft:  # the same change, whose sums are taken in another order
            rounding = 8 * torch.finfo(head.dtype).eps
            return torch.allclose(head, embedding, rtol=rounding, atol=rounding)
        return bool(head.equal(embedding))
