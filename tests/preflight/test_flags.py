"""Which flags there are, and which values they take."""

from pathlib import Path

import pytest

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.other_names import OTHER_NAMES
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.preflight import flags


def test_fields_are_flags_with_and_without_their_configuration() -> None:
    known = flags.known_flags()
    for flag in ("lr", "train_config.lr", "pure_bf16", "fsdp_config.pure_bf16", "r", "mode"):
        assert flag in known
    assert "samsum_dataset.data_path" in known and "lora_config.target_modules" in known
    assert len(known) == len(set(known))


def test_an_ambiguous_name_needs_its_configuration() -> None:
    known = flags.known_flags()
    assert {"wandb_config.id", "wandb_config.resume"} <= set(known)
    assert not {"id", "resume"} & set(known)


def test_every_configuration_has_flags() -> None:
    known = set(flags.configurations())
    assert set(DATASETS) <= known
    assert {method.config.__name__ for method in METHODS.values()} <= known
    assert {"train_config", "fsdp_config", "quantization_config", "wandb_config"} <= known


def test_good_flags_have_no_problem() -> None:
    given = {
        "lr": "1e-3",
        "use_peft": True,
        "grammar_dataset.train_split": "a.csv",
        "sharding_strategy": "NO_SHARD",
        "target_modules": "all-linear",
        "quantization": None,
    }
    assert flags.check_flags(given) == (given, [])


def test_flags_with_a_problem_are_not_used() -> None:
    given = {"lr": "x", "nothing": 1, "seed": 3, "fsdp_config.hsdp": 7}
    usable, problems = flags.check_flags(given)
    assert usable == {"seed": 3}
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("epochs", "num_epochs"),
        ("output", "output_dir"),
        ("enable_fdsp", "enable_fsdp"),
        ("lora_config.alpha", "lora_config.lora_alpha"),
        ("samsum_dataset.path", "samsum_dataset.data_path"),
    ],
)
def test_an_unknown_flag_names_the_nearest_one(given: str, nearest: str) -> None:
    _, (problem,) = flags.check_flags({given: 1})
    assert problem.fix == f"did you mean --{nearest}?"


def test_a_dotted_flag_is_checked_against_its_own_configuration() -> None:
    _, (problem,) = flags.check_flags({"fsdp_config.sharding_strategy": "SHARD"})
    assert problem.why.startswith("fsdp_config.sharding_strategy: expected one of FULL_SHARD")


def test_one_problem_for_a_value_that_two_configurations_refuse() -> None:
    _, (problem,) = flags.check_flags({"use_fp16": "perhaps"})
    assert problem.why == "train_config.use_fp16: expected true or false"


def test_each_stray_word_is_a_problem() -> None:
    first, second = flags.check_arguments(("lora", 7))
    assert first.what.startswith("'lora'") and second.what.startswith("7 ")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("learning_rate", "lr"),
        ("batch_size", "batch_size_training"),
        ("model", "model_name"),
        ("resume", "resume_from_checkpoint"),
    ],
)
def test_the_name_of_a_flag_in_other_scripts_leads_to_ours(given: str, ours: str) -> None:
    _, (problem,) = flags.check_flags({given: 1})
    assert problem.what == f"unknown flag --{given}"
    assert problem.fix == f"here it is called --{ours}"


def test_another_scripts_flag_is_checked_under_our_name() -> None:
    usable, (problem,) = flags.check_flags({"model_name_or_path": "x"})
    assert usable == {"model_name": "x"} and problem.what == "unknown flag --model_name_or_path"
    usable, _ = flags.check_flags({"model_name_or_path": "x", "model_name": "y"})
    assert usable == {"model_name": "y"}
    usable, (problem,) = flags.check_flags({"learning_rate": "fast"})  # no second problem
    assert usable == {} and problem.fix == "here it is called --lr"


def test_a_path_without_a_flag_leads_to_its_flag(tmp_path: Path) -> None:
    folder, rows = tmp_path / "my model", tmp_path / "rows.jsonl"
    folder.mkdir()
    (folder / "config.json").touch()
    rows.touch()
    words = [str(folder), str(rows), "a word", "a" * 300]
    fixes = [problem.fix.split(";")[0] for problem in flags.check_arguments(words)]
    assert fixes[:2] == [f"write --model_name '{folder}'", f"write --dataset {rows}"]
    assert fixes[2:] == ["write --flag value"] * 2
    (folder / "adapter_config.json").touch()
    for others, flag in (([], "flag value"), (["adapter"], f"adapter '{folder}'")):
        (problem,) = flags.check_arguments([str(folder)], others)
        assert problem.fix.startswith(f"write --{flag};")


def test_other_scripts_names_are_not_ours_and_lead_to_ours() -> None:
    known = set(flags.known_flags())
    assert not known & OTHER_NAMES.keys()
    assert {name.split()[0] for name in OTHER_NAMES.values()} <= known


@pytest.mark.parametrize("flag", ["dataset", "output_dir", "lora_config.lora_alpha"])
def test_a_flag_without_a_value(flag: str) -> None:
    _, (problem,) = flags.check_flags({flag: True})
    assert problem.what == f"--{flag} has no value"


@pytest.mark.parametrize("nothing", ["[]", "()", []])
def test_a_list_of_nothing_is_not_the_default(nothing: object) -> None:
    usable, (problem,) = flags.check_flags({"target_modules": nothing})
    assert usable == {} and problem.what.startswith("--target_modules")
    assert flags.check_flags({"report_to": "[]"})[1] == []
