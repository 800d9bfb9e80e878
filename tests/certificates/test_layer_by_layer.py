"""What a certificate computes a layer at a time is what transformers computes of whole models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_families import build
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from llama_recipes_local.certificates import layer_by_layer
from llama_recipes_local.certificates.certificate import Outputs
from llama_recipes_local.certificates.greedy_answers import greedy_answers
from llama_recipes_local.certificates.held_out import HeldOut, Row, chosen_rows
from llama_recipes_local.certificates.layer_by_layer import Weights, differences, relative_errors
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.model_folders.read_back import (
    ANY_ERROR,
    Block,
    ComparedModel,
    ReadBack,
    Tolerances,
)
from llama_recipes_local.models import AutoTokenizer

LENGTHS = (5, 40, 17, 3, 9, 30, 12, 8, 21, 6)
TOLERANCES = Tolerances(weights={"": 0.5}, divergence=9, perplexity=9)


def compared(folder: Path, noise: float) -> tuple[ComparedModel, LlamaForCausalLM]:
    """Return a model with noise on its weights, as a certificate has it and as transformers."""
    model: Any = LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in model.parameters():
            weight.data += noise * torch.randn_like(weight)
    weights = model.state_dict()
    side = ComparedModel(
        config=model.config,
        settings={},
        tokenizer=AutoTokenizer.from_pretrained(folder),
        ends=[2],
        weight=weights.__getitem__,
    )
    return side, model


@pytest.fixture(params=["Llama 3.2", "Llama 2 Chat"])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ReadBack, list[Any]]:
    folder = build(request.param, tmp_path / "model")
    original, first = compared(folder, 0)
    exported, second = compared(folder, 0.02)
    tied = first.config.tie_word_embeddings
    names = [name for name in first.state_dict() if not (tied and name == "lm_head.weight")]
    read = ReadBack(
        original=original,
        exported=exported,
        names=names,
        numbers=1,
        kind=lambda name: "",
        tolerances=TOLERANCES,
        files=[],
    )
    return read, [first, second]


def rows_of(vocabulary: int) -> list[Row]:
    found = []
    for length in LENGTHS:
        ids = torch.randint(0, vocabulary, (length,)).tolist()
        found.append(Row(ids, [*[IGNORE_INDEX] * (length // 2), *ids[length // 2 :]]))
    found[2] = Row(found[2].ids, [*found[2].labels[:-2], 2, 7])  # ends before its last token
    return found


def test_logits_are_those_of_transformers(models: tuple[ReadBack, list[Any]]) -> None:
    read, (first, second) = models
    rows = rows_of(first.config.vocab_size)
    found = differences(Weights(read), rows)
    for row, ours in zip(sorted(rows, key=lambda row: len(row.ids)), found, strict=True):
        ids, labels = torch.tensor([row.ids]), torch.tensor(row.labels)[1:]
        labelled = labels != IGNORE_INDEX
        with torch.no_grad():
            logits = [model(ids).logits[0, :-1][labelled] for model in (first, second)]
        assert ours.tokens == len(logits[0])
        a, b = (each.log_softmax(-1) for each in logits)
        divergence = F.kl_div(b, a, log_target=True, reduction="sum")
        # sums of float32 in another order
        torch.testing.assert_close(ours.divergence, float(divergence), rtol=1e-3, atol=1e-4)
        losses = [
            float(F.cross_entropy(each, labels[labelled], reduction="sum")) for each in logits
        ]
        torch.testing.assert_close(list(ours.losses), losses, rtol=1e-4, atol=1e-4)
        largest = float((logits[0] - logits[1]).abs().max())
        torch.testing.assert_close(ours.largest, largest, rtol=1e-3, atol=1e-4)
        assert ours.same == int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
        assert (ours.stops is not None) == (2 in row.labels)


def test_an_export_that_is_equal_differs_by_nothing(models: tuple[ReadBack, list[Any]]) -> None:
    read, (first, _) = models
    read = replace(read, exported=read.original)
    weights = Weights(read)
    found = Outputs.of(differences(weights, rows_of(first.config.vocab_size)), "here")
    assert weights.errors == {"": 0.0} and not weights.wrong
    assert found.kl_divergence == (0, 0, 0) and found.perplexity_change == (0, 0, 0)
    assert found.largest_logit_difference == 0 and found.same_likeliest_token == 1


@pytest.mark.parametrize("fault", ["missing", "of another shape", "NaN"])
def test_a_weight_that_cannot_be_computed_with_is_named(
    fault: str, models: tuple[ReadBack, list[Any]]
) -> None:
    read, (first, _) = models
    name, weight = "model.layers.1.mlp.up_proj.weight", read.exported.weight

    def broken(asked: str) -> torch.Tensor:
        if asked != name:
            return weight(asked)
        if fault == "missing":
            raise KeyError(asked)
        return weight(asked)[1:] if fault == "of another shape" else weight(asked) * torch.nan

    read = replace(read, exported=replace(read.exported, weight=broken))
    weights = Weights(read)
    differences(weights, rows_of(first.config.vocab_size))
    assert len(weights.wrong) == 1 and weights.wrong[0].startswith(name)


def test_greedy_answers_are_those_of_transformers(models: tuple[ReadBack, list[Any]]) -> None:
    read, (first, second) = models
    prompts = ["She goes", "A much longer prompt with more words"]
    held_out = HeldOut(source="here", rows=[], prompts=prompts, template=None)
    found = greedy_answers(read, held_out)
    tokenizer = read.original.tokenizer
    for prompt, answered in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        for model, text in ((first, answered.original), (second, answered.exported)):
            made = model.generate(ids, max_new_tokens=48, do_sample=False, eos_token_id=2)
            assert text == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def test_errors_are_relative_and_the_worst_row_and_weight_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    found = expected.clone()
    found[17] *= 1.5
    whole, worst, weight, scale, of_a_row = relative_errors(found, expected, Block(32, 1))
    assert of_a_row == pytest.approx(0.5)
    assert [worst, weight] == pytest.approx([0.5, 0.5]) and whole < 0.05
    of_the_row = expected[17].square().sum() / expected.square().sum()
    assert scale == pytest.approx(0.5 * float(of_the_row), rel=1e-4)
    found = expected.clone()
    found[5, 40] += 0.1 * expected[5, 32:].abs().max()
    whole, worst, weight, *_ = relative_errors(found, expected, Block(32, 1))
    assert weight == pytest.approx(0.1) and worst < 0.07 and whole < 0.01
    assert relative_errors(found, expected, Block(1, 1)).weight > 0.1  # of the weight itself
    of_a_row = relative_errors(found, expected, Block(64, 1))
    assert relative_errors(found, expected, ANY_ERROR) == of_a_row  # nothing is kept of each weight
    with monkeypatch.context() as patch:
        patch.setattr(layer_by_layer, "NUMBERS", 7 * 64)
        assert relative_errors(found, expected, Block(64, 1)) == pytest.approx(of_a_row)
    found[3, 3] = torch.nan
    assert not relative_errors(found, expected, Block(32, 1)).whole <= 9
    assert relative_errors(expected[:, :3], expected, Block(32, 1)) == (float("inf"),) * 5
    assert relative_errors(torch.zeros(4, 4), torch.zeros(4, 4), Block(32, 1)) == (0,) * 5


def test_rows_are_no_more_than_there_is_time_for() -> None:
    rows = [Row([1] * 100, [-100, *[1] * 99])] * 200
    assert len(chosen_rows(rows, 10**6)) == 64
    assert len(chosen_rows(rows, 7 * 10**9)) == 14
    assert len(chosen_rows(rows, 10**12)) == 1  # one at least
    (long,) = chosen_rows([Row([1] * 600, [-100] * 550 + [1] * 50), Row([1, 1], [-100, -100])], 1)
    assert len(long.ids) == 512 and list(long.labels[-50:]) == [1] * 50
