"""Models whose weights stay in their files until each rank reads its share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local import models, parallel
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

IDS = torch.arange(3, 40).unsqueeze(0)


def load(folder: Path, **flags: Any) -> Any:
    flags = {"model_name": str(folder), "enable_fsdp": True, **flags}
    with activate(resolve(flags)):
        return models.LlamaForCausalLM.from_pretrained(folder)


def held(model: torch.nn.Module) -> int:
    """The bytes of memory that a model's parameters hold."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def tied_model(tmp_path: Path) -> Path:
    """A model in several files, whose head is its embedding, with settings of generation."""
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config.update(do_sample=True, temperature=0.6)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    return tmp_path


def shard(model: Any) -> Any:
    return parallel.FullyShardedDataParallel(model, sync_module_states=True).eval()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("which", ["tiny_model", "tied_model"])
@pytest.mark.parametrize("flags", [{}, {"dtype": "bfloat16"}, {"pure_bf16": True}])
def test_shards_equal_the_model_that_is_loaded_at_once(
    request: pytest.FixtureRequest, which: str, flags: dict[str, Any]
) -> None:
    folder = request.getfixturevalue(which)
    deferred = load(folder, low_cpu_fsdp=True, **flags)
    assert held(deferred) == sum(p.element_size() for p in deferred.parameters())
    ordinary = load(folder, **flags).eval()
    if flags.get("pure_bf16"):  # as main does
        deferred, ordinary = deferred.to(torch.bfloat16), ordinary.to(torch.bfloat16)
    loaded = shard(deferred)
    expected = ordinary.state_dict()
    state = {name: parallel.full_tensor(tensor) for name, tensor in loaded.state_dict().items()}
    assert state.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in state.items())
    rotary = loaded.model.rotary_emb
    assert {buffer.dtype for buffer in rotary.buffers()} == {torch.float32}
    assert rotary.inv_freq.equal(ordinary.model.rotary_emb.inv_freq)
    tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert tied == (which == "tied_model")
    assert loaded.generation_config.to_dict() == ordinary.generation_config.to_dict()
    # main's cast does not reach the configuration
    ours, theirs = loaded.config.to_dict(), ordinary.config.to_dict()
    assert ours | {"dtype": None} == theirs | {"dtype": None}
    assert loaded.config._attn_implementation == ordinary.config._attn_implementation
    assert loaded.name_or_path == ordinary.name_or_path
    assert loaded(IDS).logits.equal(ordinary(IDS).logits)


@pytest.mark.usefixtures("one_rank")
def test_an_adapter_is_initialised_as_on_an_ordinary_model(tiny_model: Path) -> None:
    adapted = []
    for deferred in (True, False):
        torch.manual_seed(0)
        base = load(tiny_model, use_peft=True, low_cpu_fsdp=deferred)
        adapted.append(get_peft_model(base, LoraConfig(task_type="CAUSAL_LM")))
    ours, theirs = (
        {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        for model in adapted
    )
    assert len(ours) == 8
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    loaded = shard(adapted[0])
    kept = {name: p.full_tensor() for name, p in loaded.named_parameters() if p.requires_grad}
    assert all(tensor.equal(theirs[name]) for name, tensor in kept.items())


def test_parameters_are_frozen_in_a_deferred_model_too(tiny_model: Path) -> None:
    model = load(tiny_model, low_cpu_fsdp=True, train_only="lm_head")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["lm_head.weight"]


def test_a_weight_that_is_missing_is_named(tiny_model: Path, tmp_path: Path) -> None:
    state = LlamaForCausalLM.from_pretrained(tiny_model).state_dict()
    del state["model.norm.weight"]
    LlamaForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(TrainingError, match=r"has no model\.norm\.weight"):
        load(tmp_path, low_cpu_fsdp=True)
