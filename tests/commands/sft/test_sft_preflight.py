"""Every problem is found at once, before a weight is loaded."""

import json
import re
from pathlib import Path

import pytest
from sft_guide import GUIDE

from llama_recipes_local.commands.sft import choices, command, sft_rules
from llama_recipes_local.commands.sft.command_line import read_flags
from llama_recipes_local.commands.sft.flags import check_flags, parse
from llama_recipes_local.commands.sft.sft_run import preflight
from llama_recipes_local.errors import UsageError
from llama_recipes_local.models import AutoTokenizer


def found(flags: str) -> dict[str, str]:
    """The problems of flags, and how each is fixed."""
    good, wrong = check_flags(read_flags(flags.split())[0])
    assert wrong == []
    named = ["--dataset_name", "x", "--output_dir", "x"]
    options = parse([*read_flags(named)[0], *good])
    given = {flag.name for flag in good}
    return {problem.what: problem.fix for problem in sft_rules.check_options(options, given)}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ("--lora_r 8", "--lora_r without --use_peft"),
        ("--use_dora", "--use_dora without --use_peft"),
        ("--adapter_dtype bfloat16", "--adapter_dtype without --use_peft"),
        (
            "--use_peft --use_bnb_nested_quant",
            "--use_bnb_nested_quant without --load_in_4bit",
        ),
        ("--load_in_4bit", "--load_in_4bit without --use_peft"),
        ("--load_in_8bit", "--load_in_8bit without --use_peft"),
        ("--dataset_text_field a --local_dataset.columns text=b", "--dataset_text_field with"),
        ("--local_dataset.labels all --completion_only_loss", "--local_dataset.labels all with"),
        ("--use_peft --load_in_4bit --load_in_8bit", "--load_in_4bit with --load_in_8bit"),
        ("--use_peft --lora_target_modules lm_head", "--lora_target_modules lm_head"),
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size is 0"),
        ("--learning_rate -1", "--learning_rate is -1.0"),
        ("--fp16 --use_cpu", "--fp16 on CPU"),
        (
            "--attn_implementation kernels-community/flash-attn",
            "--attn_implementation kernels-community/flash-attn is not supported",
        ),
        ("--report_to wandb", "--report_to wandb"),
        ("--report_to all", "--report_to all"),
    ],
)
def test_flags_that_exclude_each_other_or_have_no_effect(flags: str, what: str) -> None:
    (problem,) = found(flags)
    assert problem.startswith(what)


def test_target_modules_are_those_of_the_model(tiny_model: Path) -> None:
    flags = f"--model_name_or_path {tiny_model} --max_length 64 --use_peft"
    assert found(f"{flags} --lora_target_modules qproj o_proj") == {
        "--lora_target_modules qproj": "did you mean --lora_target_modules q_proj?"
    }


@pytest.mark.parametrize(
    "flags",
    [
        "--use_peft --lora_r 8 --lora_target_modules all-linear --adapter_dtype bfloat16",
        "--use_peft --load_in_4bit --use_bnb_nested_quant --bnb_4bit_quant_type fp4",
        "--attn_implementation eager --report_to none",
    ],
)
def test_compatible_flags(flags: str) -> None:
    assert found(flags) == {}


def test_all_problems_are_reported_at_once(work: Path) -> None:
    words = "--model_name ../none --dataset_name none.jsonl --lora_rank 4 --seed one --push_to_hub"
    with pytest.raises(UsageError) as caught:
        preflight([*words.split(), "--load_in_4bit", "--output_dir", "datasets/none"])
    printed = [problem.what for problem in caught.value.problems]
    assert printed == [
        "--push_to_hub is not supported",
        "unknown flag --lora_rank",
        "--seed one is not valid",
        "--load_in_4bit without --use_peft",
        f"--model_name ../none: there is no folder {work.parent / 'none'}",
        f"{work / 'none.jsonl'} does not exist",
    ]
    assert not (work / "datasets" / "none").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--assistant_only_loss", "--assistant_only_loss with text"),
        ("--completion_only_loss", "--completion_only_loss with text"),
        ("--eos_token <none>", "--eos_token <none>"),
        ("--pad_token <none>", "--pad_token <none>"),
        ("--chat_template_path no.jinja", "--chat_template_path no.jinja does not exist"),
        ("--max_length 1024", "--max_length 1024"),
        (
            "--eval_strategy steps --save_strategy epoch --load_best_model_at_end",
            "exclude each other",
        ),
    ],
)
def test_flags_that_do_not_suit_the_model_or_the_data(
    flags: str, expected: str, work: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        preflight([*GUIDE, *flags.split()])
    (problem,) = caught.value.problems
    assert expected in problem.what


def test_conversations_need_a_chat_template(work: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    Path("chat.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 2)
    words = [*GUIDE, "--dataset_name", "chat.jsonl"]
    with pytest.raises(UsageError) as caught:
        preflight(words)
    (problem,) = caught.value.problems
    assert "the model's tokenizer has no chat template" in problem.what
    Path("chat.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(UsageError) as caught:
        preflight([*words, "--chat_template_path", "chat.jinja"])
    (problem,) = caught.value.problems
    assert "omits what the assistant says" in problem.what
    assert "--chat_template_path FILE" in problem.fix
    Path("chat.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    preflight([*words, "--chat_template_path", "chat.jinja"])
    with pytest.raises(UsageError) as caught:
        preflight([*words, "--chat_template_path", "chat.jinja", "--completion_only_loss"])
    (problem,) = caught.value.problems
    assert problem.why == "it is for prompt-completion data, and this is conversational"


def test_a_template_of_a_tokenizer_with_other_tokens(work: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(work.parent / "Llama-2-7b-hf")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = "<|new|>{{ messages[0]['content'] }}"
    tokenizer.save_pretrained("other")
    with pytest.raises(UsageError) as caught:
        preflight([*GUIDE, "--chat_template_path", "other"])
    (problem,) = caught.value.problems
    assert problem.why == "the model's tokenizer does not have <|new|>"


def test_several_devices_need_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    (problem,) = sft_rules.check_machine(parse([]))
    assert problem.what == "one process that sees 2 CUDA devices"
    assert sft_rules.check_machine(parse(read_flags(["--use_cpu"])[0])) == []


def test_a_release_of_trl_without_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.__version__", "1.15.0")
    (problem,) = sft_rules.check_machine(parse(read_flags(["--use_cpu"])[0]))
    assert problem.what == "TRL 1.15.0 on CPU"


def chosen(flags: str, monkeypatch: pytest.MonkeyPatch, bfloat16: bool = True) -> list[str]:
    """The automatic choices on a CUDA device."""
    monkeypatch.setattr(choices, "device_type", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: bfloat16)
    given, _ = check_flags(read_flags(flags.split())[0])
    decided = choices.choose(parse(given), {flag.name for flag in given})
    return [str(choice.flag) for choice in decided]


@pytest.mark.parametrize(
    ("flags", "bfloat16", "expected"),
    [
        ("", True, ["--bf16 true"]),
        ("--use_peft", True, ["--bf16 true", "--dtype bfloat16"]),
        ("--use_peft --dtype float32", True, ["--bf16 true"]),
        ("--use_peft --bf16 false", True, []),
        ("--use_peft --fp16", True, ["--dtype float16"]),
        ("--use_peft", False, ["--bf16 false", "--fp16 true", "--dtype float16"]),
        ("--use_peft --use_cpu", True, ["--bf16 false"]),
    ],
)
def test_precision_on_cuda(
    flags: str, bfloat16: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(flags, monkeypatch, bfloat16) == expected


def test_automatic_choices_are_printed_with_their_reasons(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = preflight(GUIDE)
    printed = capsys.readouterr().out
    assert re.findall(r"--> (--\S+ \S+): \w", printed) == [
        "--use_cpu true",
        "--bf16 false",
        "--max_length 512",
    ]
    assert run.training.per_device_train_batch_size == 64
    assert run.training.max_length == 512
    assert run.model.model_name_or_path == str((work.parent / "Llama-2-7b-hf").resolve())


def test_torchrun_repeats_what_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
    numbers = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    report = tmp_path / "error.json"
    for name, value in (where | numbers | {"TORCHELASTIC_ERROR_FILE": str(report)}).items():
        monkeypatch.setenv(name, value)
    assert command.main(["--nothing", "1"]) == 2
    said = capsys.readouterr().err
    assert "unknown flag --nothing" in said
    assert json.loads(report.read_text())["message"]["message"] == said.rstrip("\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "m"],
        ["--model_nam_or_path", "m"],
        ["--model_name_or_path", ""],
        ["--dataset", "d"],
        ["--output_dri", "o"],
    ],
)
def test_what_a_misnamed_flag_names_is_not_missing(words: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        preflight(words)
    named = {"--m": "no model was", "--d": "no data was", "--o": "no output folder was"}
    missing = named.pop(words[0][:3])
    said = str(refused.value)
    assert missing not in said and all(other in said for other in named.values())


def test_ctrl_c_ends_it_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)
    assert command.main([]) == 130
    assert capsys.readouterr().err == "\nstopped by Ctrl-C\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft_config.json", "prompt_template.json", "README.md"])
def test_nothing_is_written_through_a_link(name: str, tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 40)
    output = tmp_path / "output"
    output.mkdir()
    (output / name).symlink_to(tmp_path / "private")
    words = ["--model_name", tiny_model, "--dataset_name", rows, "--output_dir", output]
    with pytest.raises(UsageError) as raised:
        preflight([*map(str, words), "--max_length", "64", "--use_peft"])
    (problem,) = raised.value.problems
    assert problem.what == f"{output / name} is a link to {tmp_path}/private"
