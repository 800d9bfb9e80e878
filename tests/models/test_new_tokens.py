"""Tokens that a model was not trained on: named, given the mean row, trained where asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from shared_fixtures import one_thread  # noqa: F401 for all tests of this module

from llama_recipes_local import cli, configs
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.finetuning import main
from llama_recipes_local.models.embedding_rows import mean_row, set_to_mean, with_mean_rows
from llama_recipes_local.models.new_tokens import find_new_tokens, never_trained, new_tokens_note

TIED = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
NEW = ("<a>", "<b>", "<c>")


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models without a pad token's zero row, a tokenizer with three tokens more, and data."""
    folder = tmp_path_factory.mktemp("new")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    for tied in (False, True):
        shutil.copytree(tiny_model, folder / f"model-{tied}")
        config = transformers.AutoConfig.from_pretrained(tiny_model)
        config.tie_word_embeddings, config.pad_token_id = tied, None
        config.vocab_size = len(tokenizer)
        torch.manual_seed(3)
        transformers.LlamaForCausalLM(config).save_pretrained(folder / f"model-{tied}")
    tokenizer.add_tokens(list(NEW))
    tokenizer.save_pretrained(folder / "tokenizer")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder / "padding")
    for name, start in (("new", "<a> "), ("plain", "")):
        rows = [{"prompt": f"{start}She go {n}.", "completion": " She goes."} for n in range(40)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def train(folder: Path, out: Path, tied: bool = False, data: str = "new", **flags: Any) -> Path:
    main(
        **{
            "model_name": str(folder / f"model-{tied}"),
            "tokenizer_name": str(folder / "tokenizer"),
            "dataset": str(folder / f"{data}.jsonl"),
            "output_dir": str(out),
            "use_peft": True,
            "context_length": 48,
            "batch_size_training": 2,
            "num_workers_dataloader": 0,
            "max_train_step": 2,
            "lr": 0.01,
            "run_validation": False,
            **flags,
        }
    )
    return out


def start(folder: Path, tied: bool) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / f"model-{tied}", dtype=torch.float32
    )


def ids_of(folder: Path) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    return torch.tensor([tokenizer("<a> She go <b> to school. <c>")["input_ids"]])


def in_plain_peft(folder: Path, adapter: Path, tied: bool) -> Any:
    """Load an adapter as its README.md says."""
    model = start(folder, tied)
    card = (adapter / "README.md").read_text()
    rows = len(transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"))
    assert f"model.resize_token_embeddings({rows})\n" in card
    model.resize_token_embeddings(rows)
    return peft.PeftModel.from_pretrained(model, adapter).eval()


@pytest.mark.slow
@TIED
def test_rows_of_new_tokens_are_trained_saved_and_merged(
    tied: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only they are saved, and what is merged computes what plain PEFT does."""
    adapter = train(folder, tmp_path / "run", tied, train_new_tokens=True)
    said = capsys.readouterr().out
    assert "no rows for: <a>, <b>, <c>; their rows begin as the mean of the others and are " in said
    saved = load_file(adapter / "adapter_model.safetensors")
    rows = {name: each for name, each in saved.items() if "lora" not in name}
    assert len(rows) == (1 if tied else 2) and {each.shape for each in rows.values()} == {(3, 64)}
    means = {
        "embed_tokens": start(folder, tied).get_input_embeddings().weight.mean(0),
        "lm_head": start(folder, tied).get_output_embeddings().weight.mean(0),
    }
    for name, each in rows.items():
        moved = (each - next(mean for layer, mean in means.items() if layer in name)).abs()
        assert 1e-4 < moved.max() < 0.03  # two steps of Adam at 0.01
    wanted = in_plain_peft(folder, adapter, tied)
    assert cli.main(["merge", f"--adapter={adapter}", f"--out={tmp_path / 'merged'}"]) == 0
    merged, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()) and merged.config.tie_word_embeddings == tied
    with torch.no_grad():
        logits = [each(ids_of(folder)).logits for each in (wanted, merged.eval())]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)
    capsys.readouterr()
    command = ["generate", f"--adapter={adapter}", "--prompt=<a> She go", "--max_new_tokens=6"]
    assert cli.main(command) == 0


@pytest.mark.slow
@TIED
def test_a_run_that_trains_new_tokens_is_resumed_exactly(
    tied: bool, folder: Path, tmp_path: Path
) -> None:
    flags = {"tied": tied, "train_new_tokens": True, "save_steps": 1}
    straight = train(folder, tmp_path / "straight", **flags)
    again = {"resume_from_checkpoint": str(straight / "checkpoint-1")}
    resumed = train(folder, tmp_path / "resumed", **flags, **again)
    first, second = (load_file(run / "adapter_model.safetensors") for run in (straight, resumed))
    assert first.keys() == second.keys()
    assert all(second[name].equal(each) for name, each in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["q_proj", "q_proj,embed_tokens", "q_proj,lm_head"])
def test_rows_that_are_not_trained_are_the_mean_and_saved(
    targets: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where LoRA is on one of embedding and head, of which PEFT saves that one alone."""
    adapter = train(folder, tmp_path / "run", target_modules=targets)
    assert "not trained: add --train_new_tokens" in capsys.readouterr().out
    base = start(folder, False)
    loaded = in_plain_peft(folder, adapter, False)
    for layer, own in (
        (loaded.get_base_model().get_input_embeddings(), base.get_input_embeddings()),
        (loaded.get_base_model().get_output_embeddings(), base.get_output_embeddings()),
    ):
        assert layer.weight[: len(own.weight)].equal(own.weight)
        torch.testing.assert_close(
            layer.weight[len(own.weight) :], own.weight.mean(0).expand(3, -1), atol=1e-7, rtol=0
        )
    again = {"from_peft_checkpoint": str(adapter), "output_dir": str(tmp_path / "again")}
    train(folder, tmp_path / "again", target_modules=targets, **again)
    assert cli.main(["merge", f"--adapter={adapter}", f"--out={tmp_path / 'merged'}"]) == 0
    merged = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    )
    with torch.no_grad():
        logits = [each(ids_of(folder)).logits for each in (loaded, merged.eval())]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_a_model_does_not_grow_for_tokens_that_no_row_has(
    strategy: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Padding is done with another token then."""
    adapter = train(
        folder,
        tmp_path / "run",
        data="plain",
        batching_strategy=strategy,
        tokenizer_name=str(folder / "padding"),
    )
    assert "not resized: no row of the data has <a>, <b>, <c>, [PAD]" in capsys.readouterr().out
    names = load_file(adapter / "adapter_model.safetensors")
    assert names and all("lora" in name for name in names)
    peft.PeftModel.from_pretrained(start(folder, False), adapter)
    evaluation = ["evaluate", f"--adapter={adapter}", f"--dataset={folder / 'new.jsonl'}"]
    assert cli.main([*evaluation, "--metrics=loss", f"--out={tmp_path / 'out.json'}"]) == 2
    assert "tokens that the model has no rows for: <a>" in capsys.readouterr().err


@pytest.mark.slow
def test_every_weight_is_trained_with_the_new_rows(folder: Path, tmp_path: Path) -> None:
    out = train(folder, tmp_path / "run", use_peft=False, lr=1e-4)
    tensors = load_file(out / "model.safetensors")
    base = start(folder, False).state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        new = tensors[name][len(base[name]) :]
        assert len(new) == 3
        # two steps of Adam at 1e-4
        torch.testing.assert_close(new, base[name].mean(0).expand(3, -1), atol=3e-4, rtol=0)


@pytest.mark.parametrize("use_peft", [False, True])
def test_tokens_in_rows_that_were_never_trained_are_named(
    use_peft: bool, folder: Path, tmp_path: Path
) -> None:
    """By a row of zeros, or by the tokenizer in the model's own folder."""
    model = shutil.copytree(folder / "model-False", tmp_path / "model")
    config = configs.train_config(model_name=str(model), use_peft=use_peft)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rows = TokenRows.from_samples([{"input_ids": [0, 5, 1], "labels": [0, 5, 1]}])
    assert find_new_tokens(config, tokenizer, [rows]) is None
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][1] = 0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    new = find_new_tokens(config, tokenizer, [rows])
    assert new is not None and new.untrained == {1: "</s>"} and not new.grows
    assert ("add --train_new_tokens" in new_tokens_note(new, config)) == use_peft
    padded = TokenRows.from_samples([{"input_ids": [0, 5], "labels": [0, 5]}])
    assert find_new_tokens(config, tokenizer, [padded]) is None

    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"vocab_size": 1064}))
    config.tokenizer_name = str(folder / "tokenizer")
    more = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    token = more.convert_tokens_to_ids("<b>")
    rows = TokenRows.from_samples([{"input_ids": [0, token], "labels": [0, token]}])
    new = find_new_tokens(config, more, [rows])
    assert new is not None and new.untrained == {token: "<b>"} and not new.missing


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"peft_method": "prefix"}, "--train_new_tokens with --peft_method prefix"),
        ({"use_peft": False, "train_only": "last:1"}, "--train_new_tokens with --train_only last"),
        ({"target_modules": "q_proj,lm_head"}, "--train_new_tokens with --target_modules lm_head"),
        ({"tokenizer_name": None}, "tokenizer have rows that the model was trained on"),
    ],
)
def test_what_new_tokens_cannot_be_trained_with_is_refused(
    flags: dict[str, Any],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train(folder, tmp_path / "run", train_new_tokens=True, **flags)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_saved_adapter_needs_the_tokenizer_that_it_was_trained_with(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = train(folder, tmp_path / "run", train_new_tokens=True)
    again = {"from_peft_checkpoint": str(adapter), "output_dir": str(tmp_path / "again")}
    with pytest.raises(SystemExit, match="2"):
        train(folder, tmp_path / "again", tokenizer_name=None, data="plain", **again)
    assert "the adapter there needs" in capsys.readouterr().err
    first = load_file(adapter / "adapter_model.safetensors")
    second = load_file(train(folder, tmp_path / "again", **again) / "adapter_model.safetensors")
    assert first.keys() == second.keys()


def test_two_tokens_with_one_row_were_never_trained(folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(folder / "model-False", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][2] = weights["model.embed_tokens.weight"][0]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert never_trained(model, [0, 1, 2, 3]) == [0, 2]


def test_a_mean_is_of_trained_rows_alone() -> None:
    """By hand: a row of zeros was never trained."""
    weight = torch.tensor([[256.0], [1.0], [0.0], [1.0]], dtype=torch.bfloat16)
    assert mean_row(weight).tolist() == [86.0]
    assert with_mean_rows(weight, 5)[4:].tolist() == [[86.0]]


@TIED
def test_rows_that_are_set_are_no_part_of_their_mean(folder: Path, tied: bool) -> None:
    model = start(folder, tied)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    before = [layer.weight.detach().clone() for layer in layers]
    set_to_mean(model, [1, 3], trained=5)
    for layer, rows in zip(layers, before, strict=True):
        expected = rows[[0, 2, 4]].mean(dim=0)
        assert torch.equal(layer.weight[[1, 3]], expected.expand(2, -1))
        others = [row for row in range(len(rows)) if row not in (1, 3)]
        assert torch.equal(layer.weight[others], rows[others])
