"""``prepare tokens``: a folder that a run takes in place of its data, or refuses by name."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.commands.prepare.tokens.command import prepare_tokens
from llama_recipes_local.datasets import tokens_folder
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.run import activate
from llama_recipes_local.utils.dataset_utils import get_custom_data_collator


@pytest.fixture(scope="module")
def flags(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A mixture of the grammar data and a file of the user's own."""
    own = tmp_path_factory.mktemp("own") / "own.jsonl"
    rows = ({"prompt": f"{n} and ", "completion": f"{n} more"} for n in range(40))
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = f"grammar_dataset:3,{own}:1"
    return tiny_run | {"dataset": named, "context_length": 64}


@pytest.fixture(scope="module")
def whole(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "made"
    prepare_tokens(out=out, **flags)
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tokens"))


def taken(flags: dict[str, Any], folder: Path, **more: Any) -> RunData:
    """The data of a run with the folder, which names the model and no data."""
    named = {"model_name": flags["model_name"], "tokens_path": str(folder)}
    return prepare_data(preflight_data((), named | more))


def problems(flags: dict[str, Any], folder: Path, **more: Any) -> list[str]:
    with pytest.raises(UsageError) as refused:
        taken(flags, folder, **more)
    assert all(problem.why and problem.fix for problem in refused.value.problems)
    return [f"{problem.what}: {problem.why}" for problem in refused.value.problems]


def test_the_data_is_that_of_a_direct_run(flags: dict[str, Any], folder: Path) -> None:
    direct, ahead = prepare_data(preflight_data((), flags)), taken(flags, folder)
    for part in ("train", "test"):
        assert list(ahead.splits[part]) == list(direct.splits[part])
        assert ahead.splits[part].sources.tolist() == direct.splits[part].sources.tolist()
    assert replace(ahead, splits={}) == replace(direct, splits={})
    assert ahead.shares


def test_a_single_data_set_too(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    prepare_tokens(out=tmp_path / "one", **tiny_run)
    direct = prepare_data(preflight_data((), tiny_run))
    ahead = taken(tiny_run, tmp_path / "one")
    assert list(ahead.splits["train"]) == list(direct.splits["train"])
    assert replace(ahead, splits={}) == replace(direct, splits={})


def test_the_flags_that_were_given_may_be_given_again(flags: dict[str, Any], folder: Path) -> None:
    same = {name: value for name, value in flags.items() if name != "model_name"}
    assert taken(flags, folder, **same).shares


def test_every_file_that_is_altered_or_missing_is_named(
    flags: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    names = [path.name for path in whole.iterdir()]
    assert {"0-train.arrow", "1-validation.arrow", "tokens.json", "SHA256SUMS"} < set(names)
    for name in names:
        for kind in ("flipped", "short", "missing"):
            copy = Path(shutil.copytree(whole, tmp_path / f"{kind}-{name}"))
            content = bytearray((copy / name).read_bytes())
            content[len(content) // 2] ^= 1
            (copy / name).write_bytes(bytes(content) if kind == "flipped" else content[:-3])
            if kind == "missing":
                (copy / name).unlink()
            found = problems(flags, copy)
            # a hash that was altered is that of a file, which then does not match
            assert any(name in each or name == "SHA256SUMS" for each in found), (kind, name, found)


def test_another_format_is_named(
    flags: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_folder, "VERSION", "9.9")
    (found,) = problems(flags, folder)
    assert found.endswith("this version of the package makes and reads format 9.9")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", 32),
        ("seed", 7),
        ("dataset", "samsum_dataset"),
        ("grammar_dataset.train_split", "other.csv"),
        ("local_dataset.template", "alpaca"),
        ("mixed_dataset.sources", "grammar_dataset:1,alpaca_dataset:1"),
    ],
)
def test_a_setting_that_differs_is_named_with_both_values(
    flags: dict[str, Any], folder: Path, name: str, value: Any
) -> None:
    found = problems(flags, folder, **{name: value})
    made = json.loads((folder / "tokens.json").read_text())["settings"][name]
    wanted = f"--{name} {value} with --tokens_path {folder}: its tokens were made with"
    assert f"{wanted} --{name} {made}" in found


def test_another_tokenizer_or_chat_template_is_refused(
    flags: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(flags["model_name"], tmp_path / "instruct"))
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (found,) = problems(flags | {"model_name": str(model)}, folder)
    assert found.startswith(f"the tokenizer of {model} with --tokens_path {folder}")


def test_a_folder_without_tokens_is_refused(flags: dict[str, Any], tmp_path: Path) -> None:
    assert problems(flags, tmp_path / "none")[0].startswith(f"{tmp_path / 'none'} does not exist")
    assert "is not a whole folder of tokens" in problems(flags, tmp_path)[0]
    file = tmp_path / "rows.arrow"
    file.touch()
    assert problems(flags, file)[0] == f"{file} is a file: a folder is needed"


def test_names_that_lead_out_of_the_folder_are_refused(
    flags: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """Also where all hashes are right: a folder comes from elsewhere."""
    outside = tmp_path / "outside.arrow"
    shutil.copy(folder / "0-train.arrow", outside)
    about = (folder / "tokens.json").read_text().replace("0-train.arrow", "../outside.arrow")
    (folder / "tokens.json").write_text(about)
    sums = ("tokens.json", "../outside.arrow", "0-validation.arrow")
    hashes = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sums)
    lines = [f"{digest}  {name}\n" for digest, name in zip(hashes, sums, strict=True)]
    (folder / "SHA256SUMS").write_text("".join(lines))
    assert any("outside.arrow" in each for each in problems(flags, folder))


CUSTOM = """
raise SystemExit("run")
def get_custom_dataset(config, tokenizer, split):
    return []
"""


def test_no_file_that_a_folder_names_is_run(
    flags: dict[str, Any], tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    code = tmp_path / "mine.py"
    sample = '{"input_ids": [5, 6, 1], "labels": [-100, 6, 1], "attention_mask": [1, 1, 1]}'
    code.write_text(f"def get_custom_dataset(config, tokenizer, split): return [{sample}] * 4\n")
    custom = {"dataset": "custom_dataset", "custom_dataset.file": str(code)}
    prepare_tokens(out=tmp_path / "one", **(tiny_run | custom))
    code.write_text(CUSTOM)
    named = {"model_name": tiny_run["model_name"], "tokens_path": str(tmp_path / "one")}
    run = preflight_data((), named)
    run.data = prepare_data(run)
    with activate(run):
        assert run.dataset is not None
        assert get_custom_data_collator(run.tokenizer, run.dataset) is None
    assert len(run.data.splits["train"]) == 4


def test_what_cannot_be_made_ahead_is_refused(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b"}\n' * 3)
    own = tiny_run | {"dataset": str(tmp_path / "rows.jsonl"), "local_dataset.streaming": True}
    own |= {"max_train_step": 1, "max_eval_step": 1}
    with pytest.raises(UsageError, match="streaming with prepare tokens"):
        prepare_tokens(out=tmp_path / "out", **own)
    with pytest.raises(UsageError, match="nothing in it is overwritten"):
        prepare_tokens(out=tmp_path, **tiny_run)
    assert not (tmp_path / "out").exists()
