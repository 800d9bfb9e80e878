"""Files of prompts, chats, streaming and the prompt template that training saved."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from generate_command import generate, refused

from llama_recipes_local import cli
from llama_recipes_local.answers.stopping import Stops, find_stops
from llama_recipes_local.commands.generate import flags
from llama_recipes_local.datasets import grammar
from llama_recipes_local.datasets.prompt_template import (
    CHAT,
    PROMPT_TEMPLATE_FILE,
    PromptTemplate,
    save_prompt_template,
)
from llama_recipes_local.datasets.templates import TEMPLATES

pytestmark = pytest.mark.slow

PROMPTS = ["She go to school.", "I", "He have\ttwo very old cat and she like it much.", "Why?"]


def records(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def with_template(adapter: Path, tmp_path: Path) -> Path:
    """The adapter with the grammar data's prompt template, as a run saves it."""
    folder = shutil.copytree(adapter, tmp_path / "with_template")
    save_prompt_template(PromptTemplate("prompt", grammar.PROMPT), folder)
    return folder


def test_a_batch_gives_the_completions_of_each_prompt_alone(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n\n".join(PROMPTS) + "\n", "utf-8")
    words = ("--adapter", adapter, "--max_new_tokens", 12)
    alone = [
        {"prompt": prompt, "completion": generate(capsys, *words, "--prompt", prompt)[:-1]}
        for prompt in PROMPTS
    ]
    assert len({each["completion"] for each in alone}) == len(PROMPTS)
    # a tokenizer without a padding token pads with its end token, or with any
    unpadded, endless = tmp_path / "unpadded", tmp_path / "endless"
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(unpadded)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(endless)
    named = [("--tokenizer_name", folder) for folder in (unpadded, endless)]
    for more in (("--batch_size", 1), ("--batch_size", 3), *named):
        assert records(generate(capsys, *words, "--prompts", file, *more)) == alone


def test_prompts_may_come_from_a_pipe(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell names one: ``--prompts <(head -20 prompts.txt)``."""
    words = ("--adapter", adapter, "--max_new_tokens", 4)
    alone = generate(capsys, *words, "--prompt", PROMPTS[0])
    for flag in ("--prompts", "--prompt_file"):
        reading, writing = os.pipe()
        os.write(writing, f"{PROMPTS[0]}\n".encode())
        os.close(writing)
        said = generate(capsys, *words, flag, f"/dev/fd/{reading}")
        os.close(reading)
        assert said == alone or records(said)[0]["completion"] == alone[:-1]


def test_records_have_prompts_or_turns(
    with_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", with_template, "--max_new_tokens", 6)
    file = tmp_path / "prompts.jsonl"
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "Bye"},
    ]
    file.write_text(json.dumps({"prompt": "Hi", "more": 1}) + "\n")
    alone = generate(capsys, *words, "--prompt", "Hi")[:-1]
    assert records(generate(capsys, *words, "--prompts", file)) == [
        {"prompt": "Hi", "completion": alone}
    ]
    file.write_text(json.dumps({"messages": turns, "prompt": "Hi", "id": 1, "system": ""}) + "\n")
    said = refused(capsys, *words, "--prompts", file)
    assert "--> fields of the records that are not used: prompt (1), id (1)\n" in said
    file.write_text(json.dumps({"messages": turns}) + "\n")
    assert "has turns" in refused(capsys, *words, "--prompts", file)
    (record,) = records(generate(capsys, *words, "--prompts", file, "--template", "guanaco"))
    text = "<s>### Human: Hi### Assistant: Yo### Human: Bye### Assistant:"
    as_text = generate(capsys, *words, "--raw", "--prompt", text.removeprefix("<s>"))
    assert record == {"messages": turns, "completion": as_text[:-1]}
    file.write_text('{"question": "Hi"}\n')
    assert "question" in refused(capsys, *words, "--prompts", file)
    file.write_text('{"prompt": "Hi"}\n{"prompt": " "}\n{"promt": "Hi"}\n{')
    said = refused(capsys, *words, "--prompts", file)
    assert "3 problems" in said and "line 4" in said
    assert "its 'prompt' is blank" in said and "its keys are promt" in said
    file.write_text("\n")
    assert "has no" in refused(capsys, *words, "--prompts", file)
    assert str(tmp_path / "none") in refused(capsys, *words, "--prompts", tmp_path / "none")
    assert f"{tmp_path} is a folder" in refused(capsys, *words, "--prompts", tmp_path)


def test_what_training_saved_is_used(
    with_template: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--max_new_tokens", 8, "--prompt", PROMPTS[0])
    plain = generate(capsys, "--adapter", adapter, *words)
    as_trained = generate(capsys, "--adapter", adapter, "--dataset", "grammar_dataset", *words)
    assert plain != as_trained
    assert generate(capsys, "--adapter", with_template, *words) == as_trained
    assert generate(capsys, "--adapter", with_template, "--raw", *words) == plain
    step = shutil.copytree(adapter, with_template / "checkpoint-3")
    assert generate(capsys, "--adapter", step, *words) == as_trained


def test_a_stream_prints_the_same(with_template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--adapter", with_template, "--max_new_tokens", 8, "--prompt", PROMPTS[0])
    assert generate(capsys, *words, "--stream") == generate(capsys, *words)


def test_completions_that_were_cut_off_are_counted(
    with_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text that breaks off looks like the model's own end."""
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS[:2]))
    words = ["generate", "--adapter", str(with_template), "--max_new_tokens", "2"]
    for more, said in (
        (["--prompts", str(file)], "2 of 2 completions were"),
        (["--prompt", PROMPTS[0], "--stream"], "the completion was"),
    ):
        assert cli.main([*words, *more]) == 0
        assert f"--> {said} cut off at --max_new_tokens 2\n" in capsys.readouterr().err


def test_several_completions_are_sampled_for_each_prompt(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS[:2]))
    words = ("--adapter", adapter, "--max_new_tokens", 8, "--do_sample")
    words = (*words, "--num_return_sequences", 3)
    drawn = records(generate(capsys, *words, "--prompts", file))
    assert [len(set(each["completions"])) for each in drawn] == [3, 3]
    greedy = generate(capsys, *words[:4], "--prompt", PROMPTS[1])
    printed = generate(capsys, *words, "--top_k", 1, "--prompt", PROMPTS[1])
    assert printed == "\n\n".join([greedy[:-1]] * 3) + "\n"


def test_repeated_tokens_may_be_penalized(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", adapter, "--max_new_tokens", 30, "--prompt", PROMPTS[0])
    plain, again, penalized = (
        generate(capsys, *words, "--repetition_penalty", penalty) for penalty in (1.0, 1.0, 1e6)
    )
    assert plain == again != penalized


def test_a_full_model_may_have_its_tokenizer_elsewhere(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--max_new_tokens", 8, "--prompt", PROMPTS[0])
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, bare)
    # the folder's sampling options are ignored
    config = {"do_sample": True, "suppress_tokens": list(range(300, 1000)), "eos_token_id": 1}
    (bare / "generation_config.json").write_text(json.dumps(config))
    whole = generate(capsys, "--model_name", tiny_model, *words)
    assert "--tokenizer_name DIR" in refused(capsys, "--model_name", bare, *words)
    named = ("--tokenizer_name", tiny_model)
    assert generate(capsys, "--model_name", bare, *named, *words) == whole
    record = {"train_config": {"model_name": str(tiny_model)}}
    (bare / "run_config.json").write_text(json.dumps(record))
    assert generate(capsys, "--model_name", bare, *words) == whole
    assert whole != generate(capsys, "--adapter", adapter, *words)


def test_an_adapter_its_merged_folder_and_a_moved_base_complete_alike(
    with_template: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--max_new_tokens", 24, "--prompt", PROMPTS[2])
    fresh = generate(capsys, "--adapter", with_template, *words)
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    path = with_template / "adapter_config.json"
    gone = json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "gone")}
    path.write_text(json.dumps(gone))
    assert generate(capsys, "--adapter", with_template, "--model_name", moved, *words) == fresh
    merge = ("merge", "--adapter", with_template, "--model", moved, "--out", tmp_path / "merged")
    assert cli.main([*map(str, merge)]) == 0
    assert (tmp_path / "merged" / PROMPT_TEMPLATE_FILE).is_file()
    assert generate(capsys, "--model_name", tmp_path / "merged", *words) == fresh
    assert generate(capsys, "--model_name", moved, "--dataset", "grammar_dataset", *words) != fresh


def test_an_adapter_may_come_with_a_larger_vocabulary(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import peft

    base: Any = transformers.LlamaForCausalLM.from_pretrained(tiny_model)
    base.resize_token_embeddings(1003, mean_resizing=False)
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM"))
    adapted.save_pretrained(str(tmp_path / "grown"))
    words = ("--max_new_tokens", 4, "--prompt", "x")
    generate(capsys, "--adapter", tmp_path / "grown", *words)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_weights_may_be_quantised(
    bits: str, with_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the flag, or by the run's record unless the flag is ``none``."""
    words = ("--adapter", with_template, "--max_new_tokens", 10, "--prompt", PROMPTS[0])
    plain = generate(capsys, *words)
    asked = generate(capsys, *words, "--quantization", bits)
    record = {"train_config": {"quantization": True if bits == "8bit" else bits}}
    (with_template / "run_config.json").write_text(json.dumps(record))
    assert generate(capsys, *words) == asked
    assert generate(capsys, *words, "--quantization", "none") == plain
    if bits == "4bit":  # 8 bits may give the same
        assert asked != plain


def test_a_chat_continues_from_its_turns(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", adapter, "--max_new_tokens", 6, "--system", "Be kind.")
    typed = "Hi\n\n/help\nBye\n/new\nBye\n/quit\nnot read\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert cli.main(["generate", *map(str, words), "--chat", "--template", "guanaco"]) == 0
    printed, notes = capsys.readouterr()
    assert notes.count("/quit or Ctrl-D ends it") == 2  # at the start, and for /help
    assert notes.count("--> the completion was cut off at --max_new_tokens 6") == 3

    def answer(text: str) -> str:
        return generate(capsys, *words[:4], "--raw", "--prompt", text)

    first = answer("Be kind.\n### Human: Hi### Assistant:")
    said = first[:-1].strip()
    second = answer(f"Be kind.\n### Human: Hi### Assistant: {said}### Human: Bye### Assistant:")
    third = answer("Be kind.\n### Human: Bye### Assistant:")
    assert printed == first + second + third
    assert second != third
    assert "--template NAME" in refused(capsys, "--adapter", adapter, "--chat")


OWN = (
    "{{ bos_token }}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_models_own_chat_template_is_used(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a full model; ``--system`` goes before the prompt, or before each of a file."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "instruct"))
    (model / "chat_template.jinja").write_text(OWN)
    words = ("--model_name", model, "--max_new_tokens", 6)
    system = ("--system", "Be kind.")

    def plain(text: str) -> str:
        return generate(capsys, *words, "--raw", "--prompt", text)

    asked = generate(capsys, *words, "--prompt", "Hi")
    with_system = generate(capsys, *words, *system, "--prompt", "Hi")
    assert asked == plain("<user>Hi<assistant>") != plain("Hi")
    assert with_system == plain("<system>Be kind.<user>Hi<assistant>") != asked
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    many = generate(capsys, *words, *system, "--prompts", tmp_path / "prompts.jsonl")
    assert json.loads(many) == {"prompt": "Hi", "completion": with_system.rstrip("\n")}
    (tmp_path / "own.jsonl").write_text(
        '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}\n'
    )
    told = refused(capsys, *words, *system, "--prompts", tmp_path / "own.jsonl")
    assert "leave one of them out" in told


WITH_TOOLS = OWN.replace("}}{%", "}}{% if tools %}[{{ tools | tojson }}]{% endif %}{%", 1)
TOOL = {"type": "function", "function": {"name": "f"}}


def test_what_stands_beside_a_prompt_in_a_file_is_used(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in training: a system message, earlier turns, tools, and a result that is an object."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "instruct"))
    template = model / "chat_template.jinja"
    template.write_text(WITH_TOOLS)
    words = ("--model_name", model, "--max_new_tokens", 6)
    turns = [{"role": "user", "content": "y"}, {"role": "tool", "content": {"t": 1}}]
    for record, text in (
        ({"prompt": "Hi", "system": "Be kind."}, "<system>Be kind.<user>Hi"),
        ({"prompt": "Hi", "history": [["a", "b"]]}, "<user>a<assistant>b<user>Hi"),
        ({"prompt": [{"role": "user", "content": "y"}]}, "<user>y"),
        ({"messages": turns, "tools": [TOOL]}, f'[[{json.dumps(TOOL)}]]<user>y<tool>{{"t": 1}}'),
    ):
        (tmp_path / "prompts.jsonl").write_text(json.dumps(record))
        (found,) = records(generate(capsys, *words, "--prompts", tmp_path / "prompts.jsonl"))
        plain = generate(capsys, *words, "--raw", "--prompt", f"{text}<assistant>")
        assert found["completion"] == plain[:-1]
    template.write_text(OWN)
    told = refused(capsys, *words, "--prompts", tmp_path / "prompts.jsonl")
    assert f"has no place for tools: line 1 of {tmp_path}" in told


def test_a_system_message_needs_a_chat_template(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "--adapter", adapter, "--prompt", "Hi", "--system", "Be kind.")
    assert "the prompt has a system message" in told and "--template NAME" in told


def test_an_answer_ends_at_a_token_or_at_the_next_turn(tiny_model: Path) -> None:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": list(TEMPLATES["llama3"].tokens)})
    ends = {name: tokenizer.convert_tokens_to_ids(name) for name in ("</s>", "<|eot_id|>")}
    llama3 = find_stops(PromptTemplate(CHAT, TEMPLATES["llama3"].text, True), tokenizer, [7])
    assert llama3 == Stops((7, ends["</s>"], ends["<|eot_id|>"]))
    guanaco = find_stops(PromptTemplate(CHAT, TEMPLATES["guanaco"].text), tokenizer, [])
    assert guanaco == Stops((ends["</s>"],), ("### Human:",))
    assert guanaco.truncate("Yes. ### Human: more") == "Yes."
    assert [
        guanaco.certain_part(text) for text in ("Yes", "Yes ##", "Yes ### Hum", "Yes ### no")
    ] == [
        "Yes",
        "Yes ",
        "Yes ",
        "Yes ### no",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--adapter DIR"),
        (("--adapter", "x", "--stream", "--prompts", "y"), "--stream"),
        (("--adapter", "x", "--chat", "--raw"), "--raw"),
        (("--adapter", "x", "--prompt", "y", "--raw", "--system", "z"), "--system"),
        (("--adapter", "x", "--chat", "--do_sample", "--num_return_sequences", 2), "--chat"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(
    words: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *words)


def test_the_help_lists_every_chat_template() -> None:
    assert ("tokenizer", *TEMPLATES) == flags.TEMPLATES
