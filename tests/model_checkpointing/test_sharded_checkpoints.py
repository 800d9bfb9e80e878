"""What two ranks save is complete, and loads on any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from torchrun import HELPERS, run_ranks
from transformers import LlamaForCausalLM

from llama_recipes_local import configs
from llama_recipes_local import model_checkpointing as checkpoints

pytestmark = pytest.mark.ranks

SCRIPT = HELPERS / "checkpointing_ranks.py"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose head is its embedding, as in the smaller Llamas 3.2."""
    folder = tmp_path_factory.mktemp("models") / "tied-llama"
    config = transformers.AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def saved(
    environment: dict[str, str],
    tiny_model: Path,
    tied_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder in which two ranks have saved trained models in every way."""
    folder = tmp_path_factory.mktemp("checkpoints")
    logs = tmp_path_factory.mktemp("logs")
    models = (tiny_model, tied_model)
    run_ranks(SCRIPT, "save", folder, *models, ranks=2, env=environment, logs=logs)
    return folder


@pytest.fixture(scope="module")
def loaded_on_four(
    saved: Path,
    environment: dict[str, str],
    tiny_model: Path,
    tied_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same folder, after four ranks have loaded the sharded models."""
    logs = tmp_path_factory.mktemp("logs")
    models = (tiny_model, tied_model)
    run_ranks(SCRIPT, "load", saved, *models, ranks=4, env=environment, logs=logs)
    return saved


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    """Compare bit by bit; a tied head may be listed next to its embedding."""
    assert theirs
    for name, tensor in theirs.items():
        assert ours[name].equal(tensor), name
    assert ours.keys() - theirs.keys() <= {"lm_head.weight"}


def checkpoint_of(saved: Path, kind: str, model: Path) -> Path:
    root = str(saved / kind)
    config = configs.train_config(model_name=str(model), dist_checkpoint_root_folder=root)
    return checkpoints.checkpoint_folder(config)


def test_the_trained_model_is_not_the_one_it_started_from(saved: Path, tiny_model: Path) -> None:
    start = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).state_dict()
    expected = load_file(saved / "expected.safetensors")
    assert not any(tensor.equal(start[name]) for name, tensor in expected.items())


def test_every_rank_saves_its_shards(saved: Path, tiny_model: Path) -> None:
    folder = checkpoint_of(saved, "bare", tiny_model)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == 2
    expected = load_file(saved / "expected.safetensors")
    shards = [load_file(path) for path in files]
    for name, tensor in expected.items():
        assert torch.cat([shard[name] for shard in shards]).equal(tensor)


@pytest.mark.parametrize("kind", ["sharded", "bare"])
def test_sharded_model_loads_in_one_process(saved: Path, tiny_model: Path, kind: str) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    folder = checkpoint_of(saved, kind, tiny_model)
    same = checkpoints.load_sharded_model_single_gpu(model, folder)
    assert same is model
    assert_equal(model.state_dict(), load_file(saved / "expected.safetensors"))


def test_sharded_model_loads_on_four_ranks(loaded_on_four: Path) -> None:
    loaded = load_file(loaded_on_four / "loaded-sharded.safetensors")
    assert_equal(loaded, load_file(loaded_on_four / "expected.safetensors"))


def test_tied_model_loads_in_one_process(saved: Path, tied_model: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tied_model, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    checkpoints.load_sharded_model_single_gpu(model, checkpoint_of(saved, "tied", tied_model))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert_equal(model.state_dict(), load_file(saved / "expected-tied.safetensors"))


def test_tied_model_loads_on_four_ranks(loaded_on_four: Path) -> None:
    loaded = load_file(loaded_on_four / "loaded-tied.safetensors")
    assert_equal(loaded, load_file(loaded_on_four / "expected-tied.safetensors"))


@pytest.mark.parametrize(
    ("kind", "epoch", "model", "expected"),
    [("full", 3, "tiny_model", "expected"), ("tied-full", 0, "tied_model", "expected-tied")],
)
def test_full_model_loads_in_plain_transformers(
    request: pytest.FixtureRequest, saved: Path, kind: str, epoch: int, model: str, expected: str
) -> None:
    base = request.getfixturevalue(model)
    folder = checkpoint_of(saved, kind, base) / f"{base.name}-{epoch}"
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    assert not any(info.values())
    assert_equal(loaded.state_dict(), load_file(saved / f"{expected}.safetensors"))


def test_optimizer_state_is_complete(saved: Path, tiny_model: Path) -> None:
    folder = checkpoint_of(saved, "full", tiny_model)
    path = folder / f"optimizer-{tiny_model.name}-3.safetensors"
    state = checkpoints.load_optimizer_checkpoint(torch.nn.Module(), path, rank=0)
    assert state is not None
    for name, tensor in load_file(saved / "expected-optimizer.safetensors").items():
        assert state[name].equal(tensor), name
    assert "param_groups.model.norm.weight.lr" in state


def test_an_optimizer_with_dtypes_among_its_settings_is_saved(
    saved: Path, tied_model: Path
) -> None:
    folder = checkpoint_of(saved, "tied-full", tied_model)
    state = load_file(folder / f"optimizer-{tied_model.name}-0.safetensors")
    assert state["state.model.norm.weight.exp_avg"].dtype == torch.bfloat16
    assert "param_groups.model.norm.weight.lr" in state
    assert not [name for name in state if name.endswith("_dtype")]


def test_optimizer_shards_are_saved_next_to_the_models(saved: Path, tiny_model: Path) -> None:
    folder = checkpoint_of(saved, "sharded", tiny_model)
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    for name, tensor in load_file(saved / "expected-optimizer.safetensors").items():
        held = [shard[f"optim.{name}"] for shard in shards if f"optim.{name}" in shard]
        whole = torch.cat(held) if tensor.dim() else held[0]
        assert whole.equal(tensor), name


def test_upstreams_converter_makes_a_model_of_the_shards(
    saved: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from llama_recipes_local.inference.checkpoint_converter_fsdp_hf import main

    main(str(checkpoint_of(saved, "sharded", tiny_model)), str(tmp_path))
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert_equal(model.state_dict(), load_file(saved / "expected.safetensors"))
    theirs, ours = map(transformers.AutoTokenizer.from_pretrained, (tiny_model, tmp_path))
    assert ours("She go to school.") == theirs("She go to school.")


def test_parameters_name_the_model(saved: Path, tiny_model: Path) -> None:
    path = checkpoint_of(saved, "sharded", tiny_model) / "train_params.yaml"
    assert yaml.safe_load(path.read_text("utf-8"))["model_name"] == str(tiny_model)


def test_embeddings_for_new_tokens_are_saved_with_the_adapter(
    saved: Path, tiny_model: Path
) -> None:
    tensors = load_file(saved / "resized" / "adapter_model.safetensors")
    start = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for name, old in (
        ("base_model.model.model.embed_tokens.weight", start.model.embed_tokens.weight),
        ("base_model.model.lm_head.weight", start.lm_head.weight),
    ):
        assert tensors[name][:1000].equal(old)
        assert tensors[name][1000:].eq(5).all()
        assert tensors[name].shape == (1003, 64)


def test_a_published_folder_holds_every_ranks_files(saved: Path) -> None:
    assert {path.name for path in (saved / "published").iterdir()} == {"rank-0", "rank-1"}


def test_nothing_is_left_over_and_nothing_is_a_pickle(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert len(files) > 15
    kinds = {path.suffix for path in files if path.parent.name != "published"}
    assert kinds == {".safetensors", ".json", ".yaml"}
    assert not list(saved.rglob(".*"))


def test_a_missing_sharded_checkpoint_is_reported(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = torch.nn.Linear(1, 1)
    root = str(tmp_path)
    config = configs.train_config(model_name=str(tiny_model), dist_checkpoint_root_folder=root)
    checkpoints.load_model_sharded(model, 0, config)
    assert f"no sharded checkpoint in {tmp_path}" in capsys.readouterr().out
