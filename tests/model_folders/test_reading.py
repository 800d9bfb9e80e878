"""What is read of a model's folder without its weights."""

from pathlib import Path

from transformers import LlamaForCausalLM

from llama_recipes_local.model_folders.tensors import parameter_count


def test_parameters_are_counted_in_the_files(tiny_model: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    assert parameter_count(tiny_model) == model.num_parameters()
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert parameter_count(tmp_path) == model.num_parameters()
    assert parameter_count(tmp_path / "nothing") is None
