"""``llama-recipes-local plan``: what is printed, refused, and counted, without torch."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.cli import main
from llama_recipes_local.commands.plan.making_plan import METHODS_TRIED
from llama_recipes_local.planning.shapes import KNOWN

PROJECT = Path(__file__).resolve().parents[3]


def plan(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["plan", *words]) == code
    printed = capsys.readouterr()
    return printed.out if code == 0 else printed.err


def flat(text: str) -> str:
    return " ".join(text.split())


def numbers(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(capsys, *words, "--json"))
    return found


def test_the_guides_command_gets_a_command_that_can_be_copied(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--model_name", "llama-2-7b", "--gpus", "4", "--use_peft", "--lr", "3e-4")
    text = plan(capsys, *words)
    assert "4.2M trained" in text
    assert "\nfastest: NO_SHARD, activations kept" in text
    shown = shlex.split(text.partition("command:\n")[2].partition("\n\n")[0].replace("\\\n", ""))
    assert shown[:4] == ["torchrun", "--nproc_per_node", "4", "finetuning.py"]
    for flag in (("--lr", "3e-4"), ("--sharding_strategy", "NO_SHARD"), ("--use_peft",)):
        at = shown.index(flag[0])
        assert tuple(shown[at : at + len(flag)]) == flag
    assert "--activation_policy keep" in " ".join(shown)


def test_the_command_asks_for_what_was_planned(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-2-13b", "--gpus", "2", "--gpu_memory", "48", "--use_peft")
    best = numbers(capsys, *words)["settings"][0]
    after = best["command"][best["command"].index("finetuning.py") + 1 :]
    again = numbers(capsys, *after, *("--gpus", "2", "--gpu_memory", "48"))["settings"]
    assert again[0]["flags"] == {}
    for name in ("peak_gib", "tokens_per_second", "sharding", "activations", "rows"):
        assert again[0][name] == best[name]


def test_each_setting_has_a_command_that_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A run chooses what a command leaves open: that of a slower one would train the fastest."""
    for words in (
        ("--model_name", "llama-2-13b", "--gpus", "3", "--gpu", "H100", "--use_peft"),
        ("--model_name", "llama-3.1-8b", "--nodes", "2", "--gpu_memory", "24", "--use_peft"),
        ("--model_name", "llama-2-7b", "--use_peft", "--peft_method", "prefix"),
    ):
        settings = numbers(capsys, *words)["settings"]
        own = words[2 : words.index("--use_peft")]
        for each in settings if settings[0]["fits"] else ():
            after = each["command"][each["command"].index("finetuning.py") + 1 :]
            if each["fits"]:
                (again, *_) = numbers(capsys, *after, *own)["settings"]
                for name in ("peak_gib", "tokens_per_second", "sharding", "activations", "rows"):
                    assert again[name] == each[name], (words, each["flags"])


def test_what_is_named_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-2-7b", "--gpus", "4", "--use_peft")
    named = ("--sharding_strategy", "FULL_SHARD", "--batch_size_training", "8")
    found = numbers(capsys, *words, *named)["settings"]
    assert {(each["sharding"], each["rows"]) for each in found} == {("FULL_SHARD", 8)}


def test_long_documents_are_slower_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-3.1-8b", "--use_peft", "--gpus", "8")
    said = " ".join(plan(capsys, *words, "--context_length", "131072").split())
    pattern = r"speed: ([\d,]+) tok/s.* document \(([\d,]+) tok/s if each row is one\)"
    found = re.search(pattern, said)
    assert found is not None
    fast, slow = (int(speed.replace(",", "")) for speed in found.groups())
    # a token sees 65,536 on average instead of 256: 9 products of 4,096 features in 32 layers,
    # at 76% of 772 TFLOP/s instead of 45%, on 8 GPUs
    seconds = 2 * 9 * (65536 / 0.76 - 256 / 0.45) * 4096 * 32 / 772e12 / 8
    assert 1 / slow == pytest.approx(1 / fast + seconds, rel=1e-3)
    assert "if each row is one" not in plan(capsys, *words)


def test_methods_are_compared_where_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, "--model_name", "llama-2-7b", "--gpu_memory", "24")
    fits = {name: each["fits"] for name, each in found["methods"].items()}
    assert fits == {"full fine-tuning": False, "LoRA": True, "QLoRA": True}
    assert found["trained"] == 32 * 2 * 8 * 8192
    assert "--use_peft" in found["settings"][0]["command"]
    for name, words in METHODS_TRIED.items():
        taken = {"--use_peft", "--quantization"} & {*found["methods"][name]["command"]}
        assert taken == {f"--{word}" for word in words if word in ("use_peft", "quantization")}


def test_where_nothing_fits_what_would_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-3.1-70b", "--gpu_memory", "80", "--use_peft")
    error = plan(capsys, *words, code=2)
    assert "nothing fits into 79.1 GiB" in error
    assert "--gpus 4" in error
    assert numbers(capsys, *words, "--gpus", "4")["settings"][0]["fits"]
    error = plan(capsys, "--model_name", "llama-3.1-405b", "--use_peft", "False", code=2)
    assert "--gpus 8 --nodes 16" in error


@pytest.mark.parametrize(
    "line",
    [
        "llama-2-7b --gpu_memory 8 --use_peft True",
        "llama-2-7b --gpu_memory 8 --nodes 2 --config qlora --r 256",
        "llama-2-13b --gpu_memory 24 --use_peft True --target_modules all-linear",
        "llama-2-70b --gpu_memory 24 --gpus 8",
        "llama-3.1-8b --gpu 4090 --use_peft True --context_length 131072",
        "llama-3.1-70b --gpu_memory 8",
        "llama-3.1-70b --gpu 4090 --use_peft True --quantization 4bit",
        "llama-3.1-405b",
        "llama-3.1-405b --gpus 8 --use_peft True",
        "smollm2-135m --gpu_memory 0.5",
        "smollm2-135m --gpu_memory 2 --batch_size_training 64",
        "llama-2-7b --gpu_memory 80 --use_peft True --val_batch_size 512",
        "llama-2-7b --gpu_memory 16 --use_peft True --batch_size_training 1 "
        "--eval_generation_rows 64",
        "llama-2-7b --gpu_memory 24 --use_peft True --activation_policy keep",
        "llama-2-7b --gpu_memory 24 --use_peft True --gradient_checkpointing False",
        "llama-2-13b --gpus 8 --gpu_memory 24 --use_peft True --sharding_strategy NO_SHARD",
        "llama-2-13b --gpus 8 --gpu_memory 48 --use_peft True --batch_size_training 512",
        "llama-3.1-405b --gpus 8 --use_peft True --sharding_strategy NO_SHARD",
    ],
)
def test_each_change_that_is_suggested_fits(capsys: pytest.CaptureFixture[str], line: str) -> None:
    model, *words = line.split()
    error = plan(capsys, "--model_name", model, *words, code=2)
    fixes = error.partition("fix: ")[2].strip().split("; or ")
    for fix in fixes:
        said, _, without = fix[fix.index("--") :].partition(", without ")
        change = shlex.split(said.partition(" (")[0].rstrip(")"))
        named = dict(zip(words[::2], words[1::2], strict=True))
        for word in filter(None, without.split(", ")):
            del named[word]
        if "--gpu_memory" in change:
            named.pop("--gpu", None)  # another GPU
        kept = [word for pair in named.items() if pair[0] not in change for word in pair]
        found = numbers(capsys, "--model_name", model, *kept, *change)
        assert found["settings"][0]["fits"], fix


def test_another_value_of_what_is_named_is_suggested_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--use_peft", "--gpus", "8", "--gpu_memory", "24", "--model_name", "llama-2-13b")

    def fix(*named: str) -> str:
        return plan(capsys, *words, *named, code=2).partition("fix: ")[2]

    assert fix("--sharding_strategy", "NO_SHARD").startswith("--sharding_strategy FULL_SHARD; or")
    rows = fix("--batch_size_training", "512")  # the rows of a step stay
    times = re.match(r"--batch_size_training (\d+) --gradient_accumulation_steps (\d+)", rows)
    assert times is not None and int(times[1]) * int(times[2]) == 512
    named = ("--fsdp_activation_checkpointing", "False", "--batch_size_training", "4")
    policy = fix(*named, "--sharding_strategy", "FULL_SHARD")
    assert policy.startswith("--activation_policy full, without --fsdp_activation_checkpointing")
    # with the plan's own choices more GPUs are enough
    assert "--gpus 8 --nodes 2, without --sharding_strategy" in plan(
        capsys,
        *words[:3],
        "--model_name",
        "llama-3.1-405b",
        "--sharding_strategy",
        "NO_SHARD",
        code=2,
    )


M = ("--model_name", "llama-2-7b")
HYBRID = (*M, "--hsdp", "--sharding_strategy", "HYBRID_SHARD")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no model was named"),
        (("--model_name", "lama-2-7b"), "did you mean llama-2-7b?"),
        (("--model_name", "llama-2-7b", "--gpu", "abacus"), "--gpu abacus"),
        (("--model_name", "llama-2-7b", "--rank", "8"), "unknown flag --rank"),
        (("--model_name", "llama-2-7b", "--r", "many"), "--r cannot be 'many'"),
        (("--model_name", "llama-2-7b", "--context_length", "0"), "--context_length is 0"),
        (("--model_name", "llama-2-7b", "--context_length", "9000"), "has 4096 positions"),
        (("--model_name", "llama-2-7b", "--hsdp"), "--hsdp without --enable_fsdp"),
        (("--model_name", "llama-2-7b", "--sharding_strategy", "NO_SHARD"), "without --enable"),
        (
            ("--model_name", "llama-2-7b", "--use_peft", "--target_modules", "c_attn"),
            "--target_modules c_attn",
        ),
        ((*M, "--gpus", "2", "--enable_fsdp", "False"), "--enable_fsdp False with 2 GPUs"),
        ((*M, "--use_fp16", "--pure_bf16"), "--use_fp16 with --pure_bf16"),
        ((*M, "--quantization", "4bit"), "quantised weights cannot be trained"),
        ((*M, "--use_peft", "--top_layers", "2"), "--top_layers 2 with --use_peft"),
        ((*M, "--freeze_layers", "--num_freeze_layers", "33"), "the model has 32 layers"),
        ((*M, "--train_only", "last:33"), "give it from last:1 to last:32"),
        ((*M, "--train_only", "q_proj"), "use --train_only lm_head"),
        ((*M, "--activation_policy", "keep", "--gradient_checkpointing"), "leave one of them out"),
        (
            (*M, "--use_peft", "--peft_method", "prefix", "--activation_policy", "selective"),
            "selective with prefix",
        ),
        ((*M, "--fp8", "--gpu", "A100"), "--fp8 on A100 80GB"),
        ((*M, "--fp8", "--gpu", "L40S"), "--fp8 on L40S"),
        ((*M, "--fp8", "--gpu_memory", "24"), "--fp8 on RTX 4090, assumed by its memory"),
        ((*M, "--fp8", "--use_peft", "--quantization", "4bit"), "--fp8 with --quantization 4bit"),
        ((*M, "--fp8", "--use_fp16"), "--fp8 with float16"),
        ((*M, "--fp8", "--use_peft", "--use_dora"), "--fp8 with --use_dora"),
        ((*M, "--sharding_group_size", "2"), "--sharding_group_size without --hsdp"),
        ((*HYBRID, "--gpus", "4", "--sharding_group_size", "3"), "which is 4"),
        ((*HYBRID, "--gpus", "2", "--sharding_group_size", "4"), "which is 2"),
        ((*M, "--rehearse"), "plan --rehearse"),
        ((*M, "--dry_run"), "plan --dry_run"),
        ((*M, "--dataset", "grammar_dataset", "--labels", "all"), "--labels with --dataset"),
        ((*M, "--top_layers", "5000"), "it must be from 0 to 1000"),
        ((*M, "--eval_steps", "5", "--run_validation", "False"), "nothing would be validated"),
        ((*M, "--peft_method", "prefix"), "--peft_method prefix without --use_peft"),
        ((*M, "--use_peft", "--num_virtual_tokens", "9"), "it would be ignored"),
        ((*M, "--low_cpu_fsdp"), "--low_cpu_fsdp without --enable_fsdp"),
        (
            (*M, "--use_peft", "--quantization", "4bit", "--init_lora_weights", "pissa"),
            "quantised ones cannot be changed",
        ),
        (
            (*M, "--fp8", "--use_peft", "--gpus", "2", "--sharding_strategy", "FULL_SHARD"),
            "--fp8 with frozen weights that are sharded",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in plan(capsys, *words, code=2)


@pytest.mark.parametrize("word", ["", "/data/\udcff", "a" * 300])
def test_a_name_that_cannot_be_read_is_not_said_to_be_missing(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    error = plan(capsys, "--model_name", word, code=2)
    assert "--model_name" in error and "no model was named" not in error


WRONG = {
    "--model_name llama-2-7bb": "did you mean llama-2-7b?",
    "--gpu H1000": "its speed is not known here",
    "--gpu_memory -3": "not a number above 0",
    "--gpus 2 --enable_fsdp False": "--enable_fsdp False with 2 GPUs",
    "--nodes 0": "not an integer of at least 1",
    "--use_pef": "did you mean --use_peft?",
    "--lr abc": "expected a number",
    "--context_length 0": "--context_length is 0",
    "--dataset grammar_dataset:7,samsum_datset:3": "did you mean samsum_dataset?",
    "--use_fp16 --pure_bf16": "--use_fp16 with --pure_bf16",
    "--peft_method prefix": "--peft_method prefix without --use_peft",
    "--config nowhere.yaml": "nowhere.yaml",
}


def test_all_that_is_wrong_is_in_one_report(capsys: pytest.CaptureFixture[str]) -> None:
    error = plan(capsys, *" ".join(WRONG).split(), code=2)
    assert f"{len(WRONG)} problems found" in error
    for words, said in WRONG.items():
        assert said in error, words


def test_problems_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *M, "--dataset", "alpaca_datset", "--gpu", "H1000", "--json"]) == 2
    printed = capsys.readouterr()
    problems = json.loads(printed.out)["problems"]
    assert [each["what"] for each in problems] == ["--gpu H1000", "unknown --dataset alpaca_datset"]
    assert problems[1]["fix"] == "did you mean --dataset alpaca_dataset?"
    assert all(each["why"] in printed.err for each in problems)
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--model_name", "llama-3.1-405b", "--use_peft", "--json"])
    assert stopped.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert found["problems"][0]["what"] == "nothing fits into 79.1 GiB"
    assert not any(each["fits"] for each in found["settings"])
    assert numbers(capsys, *M)["problems"] == []


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Llama-2-70b-chat-hf", "llama-2-70b"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b"),
    ],
)
def test_a_variant_has_the_shape_of_its_model(
    capsys: pytest.CaptureFixture[str], name: str, known: str
) -> None:
    found = numbers(capsys, "--model_name", name, "--context_length", "512")
    assert found["weights"] == KNOWN[known].weights


def test_a_folder_needs_only_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = numbers(capsys, "--model_name", str(tmp_path))
    assert found["weights"] == KNOWN["llama-3.2-1b"].weights
    tiny = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 99}
    (tmp_path / "config.json").write_text(json.dumps(config | tiny | {"num_key_value_heads": 1}))
    small = ("--use_peft", "--context_length", "16", "--batch_size_training", "1")
    assert "79.1: outside torch 0.5" in plan(capsys, "--model_name", str(tmp_path), *small)
    stored = config | {"quantization_config": {"load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    words = ("--model_name", str(tmp_path), "--use_peft")
    quantised = numbers(capsys, *words)["settings"][0]["memory_gib"]["weights"]
    assert quantised < 0.5 * 2 * found["weights"] / 2**30
    stored["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    packed = numbers(capsys, *words)["settings"][0]["memory_gib"]["weights"]
    assert packed == pytest.approx(quantised, rel=0.05)
    assert "read whole, on one device" in plan(capsys, *words, "--gpus", "2", code=2)
    for more, said in (
        (("--use_peft", "False"), "only an adapter on them can"),
        (("--quantization", "4bit"), "not quantised a second time"),
    ):
        assert said in plan(capsys, "--model_name", str(tmp_path), *more, code=2)
    for odd in ({"num_attention_heads": 31, "head_dim": None}, {"num_key_value_heads": 5}):
        (tmp_path / "config.json").write_text(json.dumps(config | odd))
        assert "heads that do not divide" in plan(capsys, "--model_name", str(tmp_path), code=2)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "its model_type is 'gpt2'" in plan(capsys, "--model_name", str(tmp_path), code=2)
    (tmp_path / "config.json").write_text("[")
    assert "cannot be read" in plan(capsys, "--model_name", str(tmp_path), code=2)


def test_hours_are_those_of_the_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-2-7b", "--use_peft", "--num_epochs", "2")
    speed = numbers(capsys, *words)["settings"][0]["tokens_per_second"]
    text = plan(capsys, *words, "--tokens", str(speed * 3600 * 5))
    assert "time: 10.0 h for 2 epochs" in text
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "some words"}\n' * 1000)
    assert "not known (its files are not here" in plan(capsys, *words, "--dataset", "x/y.jsonl")
    found = numbers(capsys, *words, "--dataset", str(data))
    size = data.stat().st_size
    assert found["tokens_an_epoch"] == round(0.95 * size) // 4  # the rest is held out
    more = tmp_path / "more.jsonl"
    more.write_text(data.read_text() * 3)
    found = numbers(capsys, *words, "--dataset", f"{data}:1,{more}:1")  # one is repeated
    assert found["tokens_an_epoch"] == 2 * round(0.95 * 3 * size) // 4
    held_out = ("--local_dataset.validation_path", str(more))
    text = flat(plan(capsys, *words, "--dataset", str(data), *held_out))
    assert "s of it for 3 validations" in text
    assert ", without validations" in flat(plan(capsys, *words, "--tokens", "1000"))
    quiet = plan(capsys, *words, "--tokens", "1000", "--run_validation", "False")
    assert "validations" not in quiet
    mixture = f"{data}:1,x/y.jsonl:1"
    assert "not known (its files are not here" in plan(capsys, *words, "--dataset", mixture)


@pytest.mark.command
def test_a_plan_imports_no_torch() -> None:
    code = """
import sys
from llama_recipes_local.cli import main
words = ["plan", "--model_name", "llama-3.1-70b", "--gpus", "8", "--dataset", "alpaca_dataset"]
assert main([*words, "--use_peft", "--r", "16", "--quantization", "4bit"]) == 0
assert main([*words, "--config", "qlora", "--sharding_strategy", "NO_SHARD", "--scheduler",
             "cosine", "--optimizer", "AdamW"]) == 0
assert main([*words, "--attn_implementation", "eager", "--gpu_memory", "8"]) == 2
assert not {"torch", "transformers", "peft", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True)


def test_methods_that_a_flag_cannot_be_used_with_are_not_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(numbers(capsys, *M, "--fp8")["methods"]) == {"full fine-tuning", "LoRA"}


def test_the_time_is_that_of_the_steps_that_are_trained(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*M, "--use_peft", "--tokens", "1000000000")
    assert "for 20 steps (--max_train_step)" in plan(capsys, *words, "--max_train_step", "20")
    for steps in ("0", "100000000"):  # epochs end before
        assert "3 epochs of" in plan(capsys, *words, "--max_train_step", steps)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("H100 PCIe", "H100"),
    ],
)
def test_a_card_is_known_by_what_its_driver_calls_it(
    capsys: pytest.CaptureFixture[str], name: str, card: str
) -> None:
    assert numbers(capsys, *M, "--use_peft", "--gpu", name)["gpu"]["name"] == card


@pytest.mark.parametrize("name", ["RTX 3060 Ti", "L4 Super", "NVIDIA", "a", "rtx", "4060"])
def test_another_card_is_not_taken_for_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "its speed is not known here" in plan(capsys, *M, "--gpu", name, code=2)


def test_a_preset_is_that_of_the_model_and_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, "--model_name", "llama-2-70b", "--gpus", "2", "--config", "qlora")
    words = " ".join(map(str, found["settings"][0]["command"]))
    assert "--lr 0.0001" in words  # more than 13B parameters
    alone = numbers(capsys, *M, "--config", "qlora")["settings"][0]["command"]
    assert "paged_adamw" in alone


@pytest.mark.parametrize(
    "line",
    [
        "llama-2-7b",
        "llama-2-7b --gpu_memory 8",
        "meta-llama/Llama-2-7b-hf --gpus 4 --use_peft --tokens 123456789 --save_steps 100",
        "llama-3.1-70b --gpus 8 --nodes 64",
        "llama-3.1-8b --gpus 8 --gpu L40S --config qlora --sharding_strategy auto",
        "llama-3.1-70b --gpus 8 --nodes 8 --use_peft --dataset alpaca_dataset",
    ],
)
def test_a_plan_is_read_in_80_columns(capsys: pytest.CaptureFixture[str], line: str) -> None:
    model, *words = line.split()
    lines = plan(capsys, "--model_name", model, *words).splitlines()
    assert max(map(len, lines)) <= 80
    shown = lines[lines.index("next:") :] if "next:" in lines else []
    assert not any("does not fit" in line for line in shown)


def test_a_recipe_says_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "llama-3-8b", "--config", "full", "--gpus", "4")
    found = numbers(capsys, *words)
    assert found["methods"] == {} and found["trained"] == found["weights"]
    # LoRA would fit
    assert "nothing fits into 11.6 GiB" in plan(capsys, *words, "--gpu_memory", "12", code=2)
    for named in ("--use_peft", "--train_config.use_peft"):
        assert numbers(capsys, *words, named)["trained"] < found["weights"] / 100


def test_what_a_folder_and_short_rows_are_planned_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path
) -> None:
    data, bare = tmp_path / "rows.jsonl", tmp_path / "bare"
    data.write_text('{"prompt": "one", "completion": "two"}\n' * 40, "utf-8")
    bare.mkdir()
    shutil.copy(tiny_model / "config.json", bare)
    words = ("--dataset", str(data), "--context_length", "64")
    text = flat(plan(capsys, "--model_name", str(bare), *words))
    assert "bytes a token; short rows in a chat template have twice as many: --dry_run" in text
    assert "64 tokens a document" in text
    assert "a run needs the model's folder" not in text
    named = ("--model_name", str(bare), "--tokenizer_name", str(tiny_model), *words)
    for of_folder in (("--model_name", str(tiny_model), *words), named):
        text = flat(plan(capsys, *of_folder))
        assert re.search(r"of \d+ tokens \(as tokenised\)", text)
        assert "64 tokens a document" not in text


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_some_rows_tell_the_steps_that_a_dry_run_counts(
    strategy: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    rows = ({"prompt": "How many?", "completion": f"{n} of {n * n}"} for n in range(3000))
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = ["--model_name", str(tiny_model), "--dataset", str(data), "--context_length", "128"]
    words += ["--batching_strategy", strategy]
    assert re.search(r"estimated from [\d,]+ rows", flat(plan(capsys, *words)))
    planned = numbers(capsys, *words)["steps"]
    assert main(["finetune", *words, "--dry_run", "--data_cache", str(tmp_path / "cache")]) == 0
    found = re.search(r"([\d,]+) steps", flat(capsys.readouterr().out))
    assert found is not None
    counted = int(found[1].replace(",", ""))
    near = 0 if strategy == "padding" else 0.08  # of 128 tokens half a document stays empty
    assert planned == pytest.approx(counted, rel=near)


def test_rows_that_a_run_refuses_are_not_planned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": "one", "completion": "two"}] * 9 + [{"prompt": 1, "completion": "two"}]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = ("--model_name", str(tiny_model), "--dataset", str(data), "--context_length", "64")
    assert "is not text" in flat(plan(capsys, *words, code=2))
    assert "--tokens" in flat(plan(capsys, *words, "--tokens", "1000"))


def test_what_is_assumed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model_name", "meta-llama/Llama-2-7b-hf", "--gpu_memory", "24", "--use_peft")
    text = " ".join(plan(capsys, *words).split())
    assert "there is no such folder: a model called llama-2-7b" in text
    assert "a run needs the model's folder in the place of meta-llama/Llama-2-7b-hf" in text
    assert "assumed by its memory (--gpu NAME)" in text
    text = " ".join(plan(capsys, *M, "--gpu", "4090", "--use_peft").split())
    assert "assumed" not in text
    assert "no such folder" not in text
    assert "to the others of its node" not in text
    several = (*M, "--gpus", "4", "--nodes", "2", "--use_peft", "--node_link", "12")
    for gpu, link in (("H100", 450), ("4090", 25)):
        text = flat(plan(capsys, *several, "--gpu", gpu))
        assert f"; {link} GB/s from each to the others of its node; 12 GB/s to other nodes" in text


def test_auto_is_a_word_of_a_plan_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = (*M, "--gpus", "4", "--use_peft", "--gradient_accumulation_steps", "2")
    auto = ("--sharding_strategy", "auto", "--batch_size_training", "auto")
    found = numbers(capsys, *words, *auto, "--activation_policy", "auto")
    assert found["global_batch_rows"] == 4 * 2 * 4
    best = found["settings"][0]
    assert "auto" not in best["command"]
    assert best["rows"] * best["accumulation"] == 8
    (tmp_path / "run.yaml").write_text("use_peft: true\nbatch_size_training: auto\n")
    said = numbers(capsys, *M, "--config", str(tmp_path / "run.yaml"))
    assert said["global_batch_rows"] == 4
    assert "auto" not in said["settings"][0]["command"]
    assert "--sharding_strategy without --enable_fsdp" in plan(capsys, *M, *auto, code=2)
