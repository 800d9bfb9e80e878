"""Models that are exported as GGUF, run by llama.cpp itself and read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from llama_families import FAMILIES, build, llama3_scaling
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from llama_recipes_local.cli import main
from llama_recipes_local.datasets.prompt_template import PROMPT as PROMPT_KIND
from llama_recipes_local.datasets.prompt_template import PromptTemplate, save_prompt_template
from llama_recipes_local.datasets.stop_tokens import ends_of_folder
from llama_recipes_local.gguf_files.tensor_types import FILE_TYPES, tensor_type
from llama_recipes_local.models import AutoTokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
from changed_files import rewrite  # noqa: E402

TEXTS = (
    "She go to school yesterday.",
    "20 degrees, 1,234.5 and 3½; e-mail a.b@c.de?x=%20",
    "我们去学校。春の日、학교",
    "def f(x):\n\treturn x ** 2  # squared\r\n\n\n",
    "  two spaces,   three, trailing  ",
    "\u00a0non-breaking\u3000wide \u200bzero \N{FACE WITH TEARS OF JOY}\N{THUMBS UP SIGN}",
    "CAN'T we'll I'D naïve ÅÉ ﬁ \x07",
    "",
    " ",
    "\n",
)
PROMPT = "She go to school yesterday. 20"


def export(folder: Path, out: Path, kind: str) -> Path:
    words = ["--model_name", str(folder), "--out", str(out), "--type", kind]
    # large random weights make much of small errors
    assert main(["export", *words, "--accept", "outputs"]) == 0
    return next(out.glob("*.gguf"))


def convert(path: Path, out: Path, *words: str) -> Path:
    assert main(["convert", str(path), "--out", str(out), *words]) == 0
    return out


def reference(folder: Path, ids: list[int]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    """Same tokens, same ends, same greedy text; the logits differ by llama.cpp's float16 cache."""
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import LlamaCpp

    folder = build(name, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = [text for text in TEXTS if not text.startswith(" ")]  # see docs/after-training.md
    with LlamaCpp(export(folder, tmp_path / "out", "f32")) as model:
        for text in [*plain, *map(tokenizer.decode, ends_of_folder(folder))]:
            assert model.tokens(text) == tokenizer(text)["input_ids"]
        assert all(map(model.ends, ends_of_folder(folder)))
        ids = tokenizer(PROMPT)["input_ids"]
        expected = reference(folder, ids)
        assert np.abs(model.logits(ids) - expected).max() < 0.01 * np.abs(expected).max()
        plain_model = AutoModelForCausalLM.from_pretrained(folder)
        greedy = plain_model.generate(
            torch.tensor([ids]), max_new_tokens=4, do_sample=False, eos_token_id=None
        )
        assert model.greedy(ids, 4) == greedy[0, len(ids) :].tolist()


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "values",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_parameters": YARN | {"rope_theta": 100.0}, "max_position_embeddings": 256},
        {"rope_parameters": YARN | {"rope_theta": 1e4, "factor": 1.5, "beta_fast": 32.0}},
    ],
    ids=str,
)
def test_biases_and_yarn_are_computed_as_in_transformers(
    values: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import LlamaCpp

    folder, ids = build("Llama 2 Chat", tmp_path / "model"), list(range(5, 205, 2))
    plain = reference(folder, ids)
    changed(folder, rope_scaling=None, **values)
    config = AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = load_file(folder / "model.safetensors")
        for name, each in AutoModelForCausalLM.from_config(config).named_parameters():
            if name.endswith(".bias"):
                weights[name] = torch.randn_like(each)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    expected = reference(folder, ids)
    assert np.abs(plain - expected).max() > 0.05 * np.abs(expected).max()
    path = export(folder, tmp_path / "out", "f32")
    with LlamaCpp(path) as model:
        assert np.abs(model.logits(ids) - expected).max() < 0.01 * np.abs(expected).max()
    assert np.array_equal(reference(convert(path, tmp_path / "back"), ids), expected)


@pytest.mark.parametrize("name", ["Llama 2 Chat", "Llama 3.1", "Llama 3.2", "Yi", "SmolLM2"])
def test_a_file_becomes_the_same_folder_again(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "model")
    back = convert(export(folder, tmp_path / "out", "f32"), tmp_path / "back")
    ours, theirs = load_file(folder / "model.safetensors"), load_file(back / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    first, second = map(AutoTokenizer.from_pretrained, (folder, back))
    specials = [f"{token} x{token}" for token in first.all_special_tokens]
    for text in [*TEXTS, *specials]:
        assert first(text)["input_ids"] == second(text)["input_ids"]
    assert first.chat_template == second.chat_template
    assert set(ends_of_folder(folder)) <= {*ends_of_folder(back)}
    ids = first(PROMPT)["input_ids"]
    assert np.array_equal(reference(folder, ids), reference(back, ids))


@pytest.mark.parametrize("name", ["Llama 2 Chat", "Llama 3.1", "Code Llama", "SmolLM2"])
def test_what_llama_cpps_own_converter_writes_of_a_tokenizer_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It also writes ``add_sep_token``, and roles that llama.cpp alone knows."""
    folder = build(name, tmp_path / "model")
    path, again = export(folder, tmp_path / "out", "f32"), tmp_path / "again.gguf"
    writer = gguf.GGUFWriter(tmp_path / "none", "llama")
    special = gguf.SpecialVocab(folder)
    special.chat_template = [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "rag", "template": "R"},
    ]
    special.add_to_gguf(writer, quiet=True)
    if name == "Code Llama":
        writer.add_uint32(gguf.Keys.Tokenizer.FIM_PRE_ID, 260)
    written = {key: each.value for values in writer.kv_data for key, each in values.items()}
    new = {key: each for key, each in written.items() if key.startswith("tokenizer.")}
    rewrite(path, {"tokenizer.chat_template": "", **new}, again)
    capsys.readouterr()
    back = convert(again, tmp_path / "back")
    printed = capsys.readouterr().out
    assert ("fim_pre_token_id" in printed) is (name == "Code Llama")
    assert "chat_template" not in printed
    first, second = map(AutoTokenizer.from_pretrained, (folder, back))
    plain = [text for text in TEXTS if not text.startswith(" ")]  # see docs/after-training.md
    assert all(first(text)["input_ids"] == second(text)["input_ids"] for text in plain)
    assert second.chat_template == {"default": "{{ messages }}", "rag": "R"}


@pytest.mark.parametrize("name", ["Llama 2 Chat", "SmolLM2"])
@pytest.mark.parametrize("trained", [False, True])
def test_further_chat_templates_are_in_the_file_and_back(
    name: str, trained: bool, tmp_path: Path
) -> None:
    """llama.cpp's server takes that for tools by its name; a run's own template has none."""
    folder = build(name, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": "D", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(folder)
    if trained:
        save_prompt_template(PromptTemplate(PROMPT_KIND, "{}\n"), folder)
    path = export(folder, tmp_path / "out", "f16")
    values = {key: each.contents() for key, each in gguf.GGUFReader(path).fields.items()}
    assert ("tokenizer.chat_templates" in values) is not trained
    assert values.get("tokenizer.chat_template.tool_use") == (None if trained else "{{ tools }}")
    if not trained:
        assert values["tokenizer.chat_templates"] == ["tool_use"]
        back = AutoTokenizer.from_pretrained(convert(path, tmp_path / "back"))
        assert back.chat_template == {"default": "D", "tool_use": "{{ tools }}"}


# a thousandth of the largest weight for 16 bits; half a step of each type for the others
TOLERANCES = {"f16": 1e-3, "bf16": 8e-3, "q8_0": 0.01, "q6_k": 0.04, "q5_k_m": 0.08, "q4_k_m": 0.16}
TOLERANCES |= {"q4_1": 0.16, "q4_0": 0.16}


@pytest.mark.parametrize("kind", TOLERANCES)
def test_each_type_keeps_the_weights_within_its_steps(
    kind: str, wide: Path, tmp_path: Path
) -> None:
    back = convert(export(wide, tmp_path / "out", kind), tmp_path / "back", "--dtype", "float32")
    ours, read = load_file(wide / "model.safetensors"), load_file(back / "model.safetensors")
    assert ours.keys() == read.keys()
    for name, weight in ours.items():
        difference = (read[name] - weight).abs().max()
        assert difference <= TOLERANCES[kind] * weight.abs().max(), name
    matrices = [name for name, weight in ours.items() if weight.ndim == 2]
    assert any(not torch.equal(ours[name], read[name]) for name in matrices)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows have whole blocks of every type, but for those of one matrix."""
    folder = build("Llama 3.1", tmp_path_factory.mktemp("wide") / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 256, "intermediate_size": 288, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig.from_dict(config))
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_number_that_the_folders_dtype_does_not_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("SmolLM2", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = 70000
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    path = export(folder, tmp_path / "out", "f32")
    words = ["convert", str(path), "--out", str(tmp_path / "back")]
    assert main([*words, "--dtype", "float16"]) == 2
    assert "model.norm.weight is not finite" in capsys.readouterr().err
    assert main([*words, "--dtype", "bfloat16"]) == 0


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": YARN | {"beta_fast": 16}}, "rope_parameters"),
        ({"rope_scaling": YARN | {"attention_factor": 1.0}}, "rope_parameters"),
        (
            {"rope_scaling": llama3_scaling(8) | {"original_max_position_embeddings": 6000}},
            "rope_freqs",
        ),
        ({"max_position_embeddings": 2**25}, "has llama.context_length 33554432"),
    ],
)
def test_what_a_file_cannot_say_is_refused_before_it_is_written(
    values: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 2 Chat", tmp_path / "model")
    changed(folder, **values)
    words = ["export", "--model_name", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "--> exporting" not in printed.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"max_position_embeddings": 4096},  # cut down, for a context that fits
        {"max_position_embeddings": 2**22, "rope_theta": 45e9, "rope_scaling": None},
        # what computes the same as Llama 3's own settings at half of the first context
        {"rope_scaling": llama3_scaling(8) | {"low_freq_factor": 2.0, "high_freq_factor": 8.0}},
    ],
)
def test_other_contexts_are_exported_and_read_back(values: dict[str, Any], tmp_path: Path) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    changed(folder, **values)
    back = convert(export(folder, tmp_path / "out", "f32"), tmp_path / "back")
    ids = list(range(40))
    assert np.array_equal(reference(folder, ids), reference(back, ids))


def other_words(content: dict[str, Any]) -> None:
    content["added_tokens"][-1]["single_word"] = True


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content.update(normalizer={"type": "Lowercase"}), "changes or splits"),
        (other_words, "its token <|python_tag|> is not found within a word"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(
    change: Any, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    words = ["export", "--model_name", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "1. llama.cpp has no tokenizer like" in error and why in error


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        (["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|python_tag|>"], "not <|python_tag|>"),
        (["<|eot_id|>", "+"], "one is a plain token"),
    ],
)
def test_ends_that_a_file_cannot_name_are_refused_before_it_is_written(
    ends: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    ids = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(ends)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ids}))
    words = ["export", "--model_name", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert why in printed.err and "--format safetensors" in printed.err
    assert "--> exporting" not in printed.out
    if len(ends) > 2:
        assert main([*words, "--accept", "ends,outputs"]) == 0


@pytest.mark.parametrize("saved_again", [False, True])
def test_prompts_with_other_tokens_in_llama_cpp_are_named(
    saved_again: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers 5 saves a rule that puts a space before the text alone."""
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import LlamaCpp

    folder = build("TinyLlama", tmp_path / "model")
    if saved_again:
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    path = export(folder, tmp_path / "out", "f32")
    certified = json.loads((tmp_path / "out" / "certificate.json").read_text())["other_prompt"]
    said = f"    {certified}\n" in capsys.readouterr().out
    assert ("llama.cpp gives the model's prompts other tokens" in certified) is said is saved_again
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with LlamaCpp(path) as model:
        assert (model.tokens(text) != tokenizer(text)["input_ids"]) is saved_again


def test_a_tokenizer_without_scores_merges_in_the_order_of_its_merges(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import LlamaCpp

    folder = build("Llama 2 Chat", tmp_path / "model")
    (folder / "tokenizer.model").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with LlamaCpp(export(folder, tmp_path / "out", "f16")) as model:
        for text in TEXTS:
            assert model.tokens(text) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("name", ["SmolLM2", "Llama 2 Chat", "Llama 3.1"])
@pytest.mark.parametrize("begins", [True, False])
def test_the_files_chat_template_makes_the_prompts_of_training(
    name: str, begins: bool, tmp_path: Path
) -> None:
    folder = build(name, tmp_path / "model")
    prompt = PromptTemplate(PROMPT_KIND, 'Say "{}"\n---\nSaid: ', begins=begins)
    save_prompt_template(prompt, folder)
    path = export(folder, tmp_path / "out", "f16")
    values = {key: each.contents() for key, each in gguf.GGUFReader(path).fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "hello 20"}]
    text = tokenizer.apply_chat_template(
        turns, chat_template=values["tokenizer.chat_template"], tokenize=False
    )
    # llama.cpp adds the begin token where the file says so
    added = tokenizer.bos_token if values["tokenizer.ggml.add_bos_token"] else ""
    assert added + text == prompt.of_text("hello 20", tokenizer)


@pytest.mark.parametrize("kind", ["gguf", "fp8"])
def test_a_tokenizer_model_alone_is_exported_with_its_begin_token(
    kind: str, tmp_path: Path
) -> None:
    folder, out = build("Llama 2 Chat", tmp_path / "model"), tmp_path / "out"
    for path in (*folder.glob("tokenizer*.json"), *folder.glob("special_tokens_map.json")):
        path.unlink()
    words = ["--format", kind, "--accept", "outputs", "--out", str(out)]
    assert main(["export", "--model_name", str(folder), *words]) == 0
    begin = json.loads((folder / "config.json").read_text("utf-8"))["bos_token_id"]
    if kind == "fp8":  # by plain transformers
        ids = transformers.AutoTokenizer.from_pretrained(out)("hello")["input_ids"]
        assert ids.count(begin) == 1 and ids[0] == begin
    else:
        fields = gguf.GGUFReader(next(out.glob("*.gguf"))).fields
        assert fields["tokenizer.ggml.add_bos_token"].contents() is True


def test_pieces_have_the_kinds_that_sentencepiece_gives_them(tmp_path: Path) -> None:
    """GGUF numbers them alike; the unknown piece is one of them."""
    from sentencepiece import sentencepiece_model_pb2

    folder = build("Llama 2 Chat", tmp_path / "model")
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    own = [piece.type for piece in model.pieces]
    kinds = gguf.GGUFReader(export(folder, tmp_path / "out", "f16")).fields[
        "tokenizer.ggml.token_type"
    ]
    assert 2 in own
    assert kinds.contents()[: len(own)] == own


def test_a_head_that_is_the_embedding_is_written_once(tmp_path: Path) -> None:
    folder = build("Llama 3.2", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reader = gguf.GGUFReader(export(folder, tmp_path / "out", "f16"))
    assert "output.weight" not in {tensor.name for tensor in reader.tensors}


def test_the_layers_with_more_bits_are_llama_cpps() -> None:
    """Of 32 layers it takes the first and last eighth, and each third of those between."""
    kinds = [
        tensor_type(f"blk.{layer}.attn_v.weight", (1024, 4096), FILE_TYPES["q4_k_m"], 32, False)
        for layer in range(32)
    ]
    more = [layer for layer, kind in enumerate(kinds) if kind == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert set(kinds) == {"Q4_K", "Q6_K"}
