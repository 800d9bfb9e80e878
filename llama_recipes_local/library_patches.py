"""The list of everything that this package replaces inside other libraries at run time.

The code that makes a replacement calls its ``check`` first. That raises an error if the target is
missing from the installed version of the library, or if the library no longer uses it: a
replacement without effect would silently cost speed, memory or precision.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

Source = ModuleType | type  # what has a source to look into
LLAMA = "transformers.models.llama.modeling_llama"
CHECKPOINTED = "transformers.modeling_layers:GradientCheckpointingLayer"
BITSANDBYTES = "bitsandbytes.nn.modules"


class TargetMissingError(RuntimeError):
    """The installed version of a library does not have, or not use, what is replaced in it."""


@dataclass(frozen=True, kw_only=True)
class LibraryPatch:
    """A replacement of something inside another library.

    Attributes:
        name: what it is about.
        where: the module of this package that makes it.
        targets: what is replaced, overridden or relied on, as ``module:Class.attribute``. An
            attribute may be one that objects alone have. The value names the places, modules or
            classes (``module:Class``), of which one must use the target; versions differ. If it is
            empty, the target is one that this package calls itself.
        reason: why it is replaced.
        drop_when: what would make the replacement unnecessary.
    """

    name: str
    where: str
    targets: Mapping[str, tuple[str, ...]]
    reason: str
    drop_when: str

    def check(self) -> None:
        """Find the targets in the installed version of the library.

        Raises:
            TargetMissingError: if one is missing, or nothing uses it.
        """
        for target, places in self.targets.items():
            module, _, path = target.partition(":")
            parent, _, name = path.rpartition(".")
            owner = _find(f"{module}:{parent}")
            if not hasattr(owner, name) and name not in _set_on_objects(owner):
                raise self._error(target, "is missing")
            if places and not any(name in _names_used(_find(place)) for place in places):
                raise self._error(target, f"is not used by {' or '.join(places)}")

    def _error(self, target: str, what: str) -> TargetMissingError:
        library = target.partition(":")[0].partition(".")[0]
        return TargetMissingError(
            f"{target} {what} in {library} {version(library)}, so {self.where} cannot replace it "
            f"({self.name}): use a version of {library} that this package is tested with"
        )


def _find(place: str) -> Source | None:
    """Return a module, or a class in it (``module:Class``); None if there is none."""
    module, _, path = place.partition(":")
    try:
        found = reduce(getattr, path.split(".") if path else [], import_module(module))
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, Source) else None


def _nodes(place: Source | None) -> list[ast.AST]:
    """Return all nodes of a module's or class's source; none if there is no such place."""
    if place is None:
        return []
    return list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(place)))))


def _names_used(place: Source | None) -> set[str]:
    """Return the names that are read in a source; imports and texts are left out."""
    loads = [node for node in _nodes(place) if isinstance(getattr(node, "ctx", None), ast.Load)]
    names = {node.id for node in loads if isinstance(node, ast.Name)}
    return names | {node.attr for node in loads if isinstance(node, ast.Attribute)}


def _set_on_objects(cls: Source | None) -> set[str]:
    """Return the attributes that a class sets on its objects, buffers among them."""
    if not inspect.isclass(cls):
        return set()
    names = set()
    for node in _nodes(cls):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Call(
                func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=str(name)), *_]
            ):
                names.add(name)
    return names


CAUSAL_MASK = LibraryPatch(
    name="no causal mask for packed documents",
    where="kernels.attention",
    targets={f"{LLAMA}:create_causal_mask": (f"{LLAMA}:LlamaModel",)},
    reason="transformers looks for packed documents in the positions, and so waits for the device "
    "in each micro-batch, although this package's attention is given their bounds",
    drop_when="transformers builds no mask where cu_seq_lens_q is given",
)
ROTARY_FREQUENCIES = LibraryPatch(
    name="rotary frequencies stay in float32",
    where="models.precision",
    targets={
        f"{LLAMA}:LlamaRotaryEmbedding.inv_freq": (f"{LLAMA}:LlamaRotaryEmbedding",),
        "torch.nn:Module._apply": ("torch.nn:Module",),
    },
    reason="main casts the model to bfloat16 for pure_bf16, and the rotary frequencies with it: an "
    "angle of 512 is then off by up to one",
    drop_when="transformers computes the frequencies in float32 whatever the model is cast to",
)
DECODER_LAYER = LibraryPatch(
    name="a decoder layer's norms with the additions before them",
    where="kernels.frozen",
    targets={
        f"{LLAMA}:LlamaDecoderLayer.{name}": (f"{LLAMA}:LlamaDecoderLayer",)
        for name in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
    }
    | {f"{LLAMA}:LlamaModel.norm": (f"{LLAMA}:LlamaModel",)},
    reason="the residual stream is read and written once less in each direction, and transformers "
    "checkpoints activations in subclasses of its layer, not in replaced methods",
    drop_when="transformers fuses the addition with the norm",
)
CHECKPOINTED_LAYER = LibraryPatch(
    name="the inputs of checkpointed layers in host memory",
    where="policies.offload",
    targets={
        f"{CHECKPOINTED}.gradient_checkpointing": (CHECKPOINTED,),
    },
    reason="transformers copies an input to host memory and back while the device waits, and pins "
    "new memory for each",
    drop_when="transformers' offload copies on a stream of its own",
)
CPU_PACKING = LibraryPatch(
    name="4-bit weights are not packed again for inference on the CPU",
    where="models.quantization",
    targets={
        f"{BITSANDBYTES}:Linear4bit.support_avx512bf16_for_cpu": (f"{BITSANDBYTES}:Linear4bit",)
    },
    reason="on CPUs with AVX-512 validation packs them between two steps, and rounds their scales "
    "to bfloat16 for good",
    drop_when="bitsandbytes unpacks them without loss when training continues",
)
SHARDED_4BIT = LibraryPatch(
    name="4-bit weights are plain float32 parameters",
    where="parallel.quantized",
    targets={
        f"{BITSANDBYTES}:fix_4bit_weight_quant_state_from_module": (f"{BITSANDBYTES}:Linear4bit",)
    },
    reason="FSDP2 shards float tensors only, and drops the scales with the class of the parameter; "
    "bitsandbytes finds them in the layer",
    drop_when="FSDP2 shards bitsandbytes' parameters as they are",
)
BITSANDBYTES_OPTIMIZERS = LibraryPatch(
    name="bitsandbytes' optimizers on replicated DTensors",
    where="optimization.optimizers",
    targets={
        f"bitsandbytes.optim.optimizer:Optimizer8bit.{name}": (
            "bitsandbytes.optim.optimizer:Optimizer8bit",
        )
        for name in ("init_state", "update_step")
    },
    reason="their kernels take no DTensor, as NO_SHARD with weights in host memory makes them",
    drop_when="bitsandbytes takes DTensors",
)
LLAMA_ADAPTER = LibraryPatch(
    name="LLaMA-Adapter's attention",
    where="adapters.prompted_attention",
    targets={
        "peft.tuners.adaption_prompt.layer:AdaptedAttention": (
            "peft.tuners.adaption_prompt.model:AdaptionPromptModel",
        )
    },
    reason="PEFT computes the queries and the output projection a second time for the prompts",
    drop_when="PEFT takes the queries from the layer it wraps",
)
PREFIX = LibraryPatch(
    name="prefix tuning without a cache",
    where="adapters.prefix_tuned",
    targets={
        "peft:PeftModelForCausalLM.forward": (),
        "peft:PeftModel.get_prompt_embedding_to_save": (
            "peft.tuners.tuners_utils",
            "peft.utils.save_and_load",
        ),
    },
    reason="PEFT passes the prefix as a cache, which activation checkpointing drops and which "
    "mixes up packed documents; and it saves a rank's shard of a sharded prefix",
    drop_when="PEFT computes a prefix without a cache and saves it from state_dict",
)
PISSA = LibraryPatch(
    name="PiSSA is saved as plain LoRA",
    where="adapters.pissa",
    targets={"peft:PeftModelForCausalLM.save_pretrained": ()},
    reason="an adapter that PEFT saves during training needs the base weights without their "
    "principal part, which are nowhere",
    drop_when="PEFT converts from a sharded state_dict, without the initial adapter on disk",
)
COMPILED_FUNCTIONS = LibraryPatch(
    name="bitsandbytes' functions are compiled at their first call",
    where="api.quick_imports",
    targets={"torch:compile": ()},
    reason="PEFT imports bitsandbytes, which compiles functions as it is imported: for that torch "
    "imports its compiler, a sixth of what a start imports",
    drop_when="bitsandbytes compiles them when they are called, or PEFT imports it when needed",
)
MODEL_LIST = LibraryPatch(
    name="transformers reads the files of its models once",
    where="api.quick_imports",
    targets={"transformers.utils.import_utils:create_import_structure_from_path": ()},
    reason="it lists what its 2,500 files define as it starts, and keeps the list by the path it "
    "was asked by: twice by two paths of one folder",
    drop_when="transformers.models asks by its folder, or the list is made when it is needed",
)
PATCHES = (
    CAUSAL_MASK,
    ROTARY_FREQUENCIES,
    DECODER_LAYER,
    CHECKPOINTED_LAYER,
    CPU_PACKING,
    SHARDED_4BIT,
    BITSANDBYTES_OPTIMIZERS,
    LLAMA_ADAPTER,
    PREFIX,
    PISSA,
    COMPILED_FUNCTIONS,
    MODEL_LIST,
)


def rows() -> list[tuple[str, str, str, str]]:
    """Return name, targets, reason and end of each replacement, for the documentation."""
    return [
        (
            patch.name,
            ", ".join(f"`{target.replace(':', '.')}`" for target in patch.targets),
            patch.reason,
            patch.drop_when,
        )
        for patch in PATCHES
    ]
