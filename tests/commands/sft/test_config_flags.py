"""``sft.py --config``: flags win over the file's, and a problem has the file's line."""

from pathlib import Path

import pytest

from llama_recipes_local.commands.sft.command_line import Flag, read_flags
from llama_recipes_local.commands.sft.config_flags import usable
from llama_recipes_local.commands.sft.flags import parse
from llama_recipes_local.errors import Problem


def read(text: str, words: str, folder: Path) -> tuple[list[Flag], list[str], list[Problem]]:
    path = folder / "mine.yaml"
    path.write_text(text)
    return usable(read_flags(["--config", str(path), *words.split()])[0])


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = (
        "learning_rate: 1e-3\nuse_peft: true\nmax_seq_length: 256  # its former name\n"
        "lora_target_modules: [q_proj, v_proj]\nlocal_dataset:\n  columns: prompt=a,completion=b\n"
        "output_dir: run#1\n"
    )
    flags, notes, problems = read(text, "--learning_rate 2e-3 --lora_r 4", tmp_path)
    options = parse(flags)
    assert problems == []
    assert (options.learning_rate, options.lora_r, options.max_length) == (2e-3, 4, 256)
    assert options.use_peft and options.lora_target_modules == ["q_proj", "v_proj"]
    assert vars(options)["local_dataset.columns"] == "prompt=a,completion=b"
    assert options.output_dir == "run#1"
    said = "\n".join(notes)
    assert "--max_seq_length 256 is read as --max_length" in said
    assert "mine.yaml sets (flags win):\n      --use_peft true" in said
    assert "--learning_rate 1e-3" not in said


def test_each_problem_has_its_line(tmp_path: Path) -> None:
    text = "learning_rte: 1\nlora_r: eight\nfsdp: full_shard\nenv:\n  PATH: x\nbf16: ''\n"
    flags, _, problems = read(text, "--lora_alpah 3", tmp_path)
    assert flags == []
    found = {
        problem.what.partition("mine.yaml, ")[2] or problem.what: problem for problem in problems
    }
    assert found["line 1: unknown flag --learning_rte"].fix == "did you mean --learning_rate?"
    assert found["line 2: --lora_r eight is not valid"]
    assert found["line 3: --fsdp full_shard is not supported"]
    assert found["line 5: unknown flag --env.PATH"]
    assert found["line 6: --bf16 is empty"]
    assert found["unknown flag --lora_alpah"].fix == "did you mean --lora_alpha?"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--config"], "--config"),
        (["--config", "a.yaml", "b.yaml"], "--config a.yaml b.yaml"),
        (["--config", "lora"], "--config lora"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ],
)
def test_what_names_no_file_of_its_flags(words: list[str], what: str) -> None:
    _, _, (problem,) = usable(read_flags(words)[0])
    assert what in problem.what and problem.fix
