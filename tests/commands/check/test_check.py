"""Each file of a copied folder that is removed, truncated or altered is named."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import LlamaForCausalLM

from llama_recipes_local import cli
from llama_recipes_local.commands.check.command import examine
from llama_recipes_local.model_folders.auxiliary_files import TOKENIZERS

MODELS = ("sharded", "single", "meta")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """A model in each of three layouts, and a data set's folder."""
    root = tmp_path_factory.mktemp("copied")
    sharded = root / "sharded"
    shutil.copytree(tiny_model, sharded)
    (sharded / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(tiny_model).save_pretrained(sharded, max_shard_size="200KB")
    (sharded / "chat_template.jinja").write_text("{% for m in messages %}{{ m }}{% endfor %}")
    single = root / "single"
    shutil.copytree(tiny_model, single)
    (single / "tokenizer.json").unlink()
    names = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (single / "tokenizer_config.json").write_text(json.dumps(names))
    with (single / "tokenizer.model").open("wb") as written:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["She go to school", "He goes home"] * 20),
            model_writer=written,
            vocab_size=280,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    meta = root / "meta"
    meta.mkdir()
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 4, "norm_eps": 1e-5, "vocab_size": 64}
    (meta / "params.json").write_text(json.dumps(sizes))
    for number in range(2):
        part = {"layers.0.attention.wq.weight": torch.randn(16, 32)}
        torch.save(part, meta / f"consolidated.0{number}.pth")
    shutil.copy(single / "tokenizer.model", meta)
    data = root / "data"
    (data / "parts").mkdir(parents=True)
    rows = [{"prompt": f"问 {number}?", "completion": str(number)} for number in range(50)]
    (data / "parts/rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (data / "rows.json").write_text(json.dumps(rows))
    (data / "README.md").write_text("what it is")
    return {"sharded": sharded, "single": single, "meta": meta, "data": data}


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def point(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def put_sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  ./{name}\n"
        for name in files_of(folder)
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / folder.name)
    return to / folder.name


def named(folder: Path, name: str) -> bool:
    """Return whether exactly one problem is found, which is about the file."""
    (problem,) = examine(folder).problems
    return problem.what.startswith(f"{folder / name} ")


@pytest.mark.slow
@pytest.mark.parametrize("layout", [*MODELS, "data"])
@pytest.mark.parametrize("harm", [remove, truncate, alter, point])
def test_with_a_list_each_harmed_file_is_named_and_no_other(
    layout: str, harm: Callable[[Path], None], folders: dict[str, Path], tmp_path: Path
) -> None:
    original = folders[layout]
    assert len(files_of(original)) >= 3
    for number, name in enumerate(files_of(original)):
        folder = copied(original, tmp_path / str(number))
        put_sums(folder)
        assert examine(folder).problems == [] if number == 0 else True
        harm(folder / name)
        assert named(folder, name), name


@pytest.mark.slow
@pytest.mark.parametrize("layout", [*MODELS, "data"])
def test_without_a_list_what_can_be_known_is_named(
    layout: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    original = folders[layout]
    whole = examine(original)
    assert whole.problems == []
    for number, name in enumerate(files_of(original)):
        for harm in (remove, truncate, point):
            folder = copied(original, tmp_path / f"{number}-{harm.__name__}")
            harm(folder / name)
            found = examine(folder)
            about = [*(p.what for p in found.problems), *found.notes]
            if layout == "data" and harm is remove:
                continue  # nothing says what data there was
            if Path(name).suffix in (".md", ".jinja") and harm is not point:
                continue  # nor that a text went on, or that a model has a template
            accepted = [name]
            if harm is remove and name == "model.safetensors":
                accepted += ["no weights in safetensors"]
            if harm is remove and name in TOKENIZERS:
                accepted += ["has no tokenizer"]  # either of the two files is enough
            told = [text for text in about if any(each in text for each in accepted)]
            assert told, (name, harm)


def test_a_missing_tokenizer_is_not_said_to_be_needless(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(folders["single"], tmp_path)
    assert "tokenizer.json" in examine(folder).notes[-1]  # beside tokenizer.model it is
    (folder / "tokenizer.model").unlink()
    found = examine(folder)
    assert any("has no tokenizer" in problem.what for problem in found.problems)
    assert not any("tokenizer.json" in note or "tokenizer.model" in note for note in found.notes)


@pytest.mark.parametrize("name", ["consolidated.00.pth", "pytorch_model.bin"])
def test_an_altered_pickle_is_named_by_its_own_checksums(name: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(100)}, tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as archive:
        (entry,) = [each for each in archive.infolist() if each.filename.endswith("data/0")]
    content = bytearray((tmp_path / name).read_bytes())
    content[entry.header_offset + 200] ^= 1
    (tmp_path / name).write_bytes(content)
    problems = examine(tmp_path).problems
    assert any("checksum" in each.why and name in each.what for each in problems)


def test_hashes_that_hf_and_meta_and_what_to_bring_wrote_are_compared(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def git(content: bytes) -> str:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    folder = copied(folders["single"], tmp_path)
    notes = folder / ".cache/huggingface/download"
    notes.mkdir(parents=True)
    for name in ("generation_config.json", "model.safetensors"):
        content = (folder / name).read_bytes()
        digest = git(content) if name.endswith("json") else hashlib.sha256(content).hexdigest()
        (notes / f"{name}.metadata").write_text(f"0123\n{digest}\n1700000000.0\n")
    md5 = hashlib.md5((folder / "tokenizer.model").read_bytes()).hexdigest()
    (folder / "checklist.chk").write_text(f"{md5}  tokenizer.model\n")
    size = (folder / "config.json").stat().st_size
    listed = {"name": "config.json", "bytes": size, "exact": True}
    brought = {"model": {"folder": "elsewhere/single", "files": [listed]}}
    (folder / "what-to-bring.json").write_text(json.dumps(brought))
    whole = examine(folder)
    assert whole.problems == []
    assert len(whole.compared) == 4 and len(whole.lists) == 3
    for name in whole.compared:
        harmed = copied(folder, tmp_path / f"harmed {name}")
        (truncate if name == "config.json" else alter)(harmed / name)
        assert named(harmed, name)


@pytest.mark.parametrize(
    "text",
    ["no list", f"{'0' * 64}  ../outside\n", f"{'0' * 64}  /etc/passwd\n", "{}", '{"a": [1]}', ""],
)
def test_a_list_that_is_none_is_refused(
    text: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(ValueError, match="cannot be read as a list"):
        examine(folders["data"], tmp_path / "list")


def test_the_command_names_all_at_once(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(folders["data"], tmp_path)
    put_sums(folder)
    assert cli.main(["check", str(folder)]) == 0
    assert "no problem" in capsys.readouterr().out
    for name in ("rows.json", "parts/rows.jsonl"):
        alter(folder / name)
    assert cli.main(["check", str(folder)]) == 2
    told = capsys.readouterr()
    for name in ("rows.json", "parts/rows.jsonl"):
        assert f"{folder / name} is altered" in told.out + told.err
    with pytest.raises(SystemExit) as left:
        cli.main(["check", str(folder), "--json"])
    assert left.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 2 and found["kind"] == "data"


def test_a_folder_that_is_not_there_is_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(tmp_path / "nowhere"), "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["what"] == f"{tmp_path / 'nowhere'} does not exist"
