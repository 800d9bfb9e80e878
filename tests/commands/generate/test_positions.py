"""No completion goes beyond the model's positions, whatever ``--max_new_tokens`` asks for."""

import io
import json
from pathlib import Path

import pytest
import torch
from generate_command import generate
from transformers import AutoTokenizer, LlamaForCausalLM

from llama_recipes_local import cli

LIMIT = "--> --max_new_tokens 1,000,000,000,000 is more than the model's 512 positions leave"
LONG = "She go. " * 83


def test_each_completion_ends_at_the_last_position(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a batch too, where a shorter prompt leaves more of them."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    prompts = [LONG, LONG[:-40]]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    words = ("--model_name", tiny_model, "--raw", "--max_new_tokens", 10**12)
    answers = [
        json.loads(line)["completion"]
        for line in generate(capsys, *words, "--prompts", file).splitlines()
    ]
    lengths = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        lengths.append(ids.shape[1])
        with torch.no_grad():
            expected = model.generate(ids, max_length=512, do_sample=False)[0, ids.shape[1] :]
        assert answer == tokenizer.decode(expected, skip_special_tokens=True)
        assert len(expected) == 512 - ids.shape[1]
    assert 0 < 512 - lengths[0] < 512 - lengths[1] < 90
    assert cli.main(["generate", *map(str, words), "--prompt", LONG]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == answers[0].strip()
    assert captured.err.count(LIMIT) == 1


def test_a_length_that_fits_is_not_commented_on(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "--model_name", tiny_model, "--raw", "--prompt", LONG)
    assert cli.main([*map(str, words), "--max_new_tokens", "4"]) == 0
    assert "positions" not in capsys.readouterr().err


def test_a_chat_that_is_too_long_says_how_to_start_a_new_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{LONG * 2}\nHi\n"))
    words = ("--model_name", tiny_model, "--chat", "--template", "guanaco", "--max_new_tokens", 3)
    assert cli.main(["generate", *map(str, words)]) == 0
    captured = capsys.readouterr()
    assert "and the model has 512 positions: /new starts a new chat" in captured.err
    alone = generate(
        capsys, *words[:2], *words[5:], "--raw", "--prompt", "### Human: Hi### Assistant:"
    )
    assert captured.out == alone
