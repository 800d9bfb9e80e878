"""``--dataset a:0.7,b:0.3``: what is mixed, counted by hand, and what each source's loss is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from llama_recipes_local import models
from llama_recipes_local.data.mixed_rows import MixedRows
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import UsageError
from llama_recipes_local.kernels.labelled_rows import labelled
from llama_recipes_local.kernels.vocabulary_loss import vocabulary_loss
from llama_recipes_local.preflight.mixture_rules import check_mixture
from llama_recipes_local.preflight.rank_facts import _flags
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.record import AUDIT_FILE
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.training.evaluation import evaluate, groups_of
from llama_recipes_local.training.step_sync import sync_step
from llama_recipes_local.training.stepping import Stepper
from llama_recipes_local.utils.dataset_utils import get_dataloader

Rows = list[dict[str, str]]
END = 1  # the tiny model's </s>


def made(name: str, count: int, words: int) -> Rows:
    return [
        {"prompt": f"{name} {n} is ", "completion": " ".join(f"w{n % 7}" for _ in range(words))}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """Two files of the user's own, long answers and short ones."""
    folder = tmp_path_factory.mktemp("files")
    rows = {"long.jsonl": made("long", 60, 30), "short.jsonl": made("short", 300, 3)}
    for name, each in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in each))
    return {str(folder / name): each for name, each in rows.items()}


def mixture(run_flags: dict[str, Any], files: dict[str, Rows], **more: Any) -> Run:
    weights = zip(files, (0.25, 0.75), strict=True)
    named = ",".join([*(f"{path}:{weight}" for path, weight in weights), "grammar_dataset:0.5"])
    flags, problems = with_data_path(run_flags | {"dataset": named} | more)
    assert not problems
    return resolve(flags)


@pytest.fixture(scope="module")
def prepared(tiny_run: dict[str, Any], files: dict[str, Rows]) -> Run:
    run = mixture(tiny_run, files, context_length=128, batch_size_training=2, val_batch_size=2)
    run.data = prepare_data(run)
    return run


def data_of(run: Run) -> RunData:
    assert isinstance(run.data, RunData)
    return run.data


def test_shares_are_those_of_a_count_by_hand(
    prepared: Run, files: dict[str, Rows], tiny_model: Path
) -> None:
    """A label is each token of an answer, and the end of the text."""
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))

    def labels(row: dict[str, str]) -> int:
        return len(tokenizer.encode(row["completion"], add_special_tokens=False).ids) + 1

    rows = data_of(prepared).splits["train"]
    assert isinstance(rows, MixedRows)
    trained = [0, 0, 0]
    for row, source in enumerate(rows.sources.tolist()):
        ids = rows.arrays(row)[0].tolist()
        text = tokenizer.decode(ids)
        if source < 2:  # "long 12 is w5 w5 ..."
            number, own = int(text.split()[1]), list(files.values())[source]
            assert text == own[number]["prompt"] + own[number]["completion"]
            trained[source] += labels(own[number])
        else:
            trained[2] += int(rows.label_counts[row])
    total = sum(trained)
    reached = [each / total for each in trained]
    assert reached == pytest.approx([1 / 6, 3 / 6, 2 / 6], rel=0.01)
    assert [share.label_tokens for share in data_of(prepared).shares.values()] == trained
    held_out = {number for number in range(300) if number % 20 == 0}
    seen = {
        int(tokenizer.decode(rows.arrays(row)[0].tolist()).split()[1])
        for row in range(len(rows))
        if rows.sources[row] == 1
    }
    assert seen == set(range(300)) - held_out


def test_the_table_and_the_audit_name_each_source(prepared: Run, tmp_path: Path) -> None:
    data = data_of(prepared)
    data.save(tmp_path)
    saved = json.loads((tmp_path / AUDIT_FILE).read_text())
    assert list(saved["mixture"]) == ["long.jsonl", "short.jsonl", "grammar_dataset"]
    long = saved["mixture"]["long.jsonl"]
    assert long["train"]["rows"] == 57 and long["validation"]["rows"] == 3
    assert saved["train"]["rows"] == sum(each["rows"] for each in saved["mixture"].values())
    assert saved["train"]["counts"]["records"] == 57 + 285 + 60
    assert "\nshort.jsonl " in str(data)
    for rows, audit in zip(data.splits.values(), data.audits.values(), strict=True):
        assert isinstance(rows, MixedRows) and len(rows) == audit.rows
        ended = [int(rows.arrays(row)[0][-1]) == END for row in range(len(rows))]
        assert audit.endings is not None  # rows that were cut have no end
        assert 0.9 * len(rows) < sum(ended) == audit.endings.stopping


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_the_loss_of_a_source_is_that_of_its_rows_alone(
    prepared: Run, tiny_model: Path, strategy: str
) -> None:
    """Compared with transformers' own loss, one row at a time."""
    model = LlamaForCausalLM.from_pretrained(tiny_model).eval()
    rows = data_of(prepared).splits["test"]
    sums: dict[str, list[float]] = {}
    for row, source in enumerate(rows.sources.tolist()):
        ids, labels = (torch.tensor(each.tolist())[None] for each in rows.arrays(row))
        count = int((labels[:, 1:] >= 0).sum())
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=labels).loss) * count
        so_far = sums.setdefault(rows.names[source], [0.0, 0])
        so_far[0] += loss
        so_far[1] += count
    prepared.train.batching_strategy = strategy
    with activate(prepared):
        assert prepared.dataset is not None
        loader = get_dataloader(prepared.tokenizer, prepared.dataset, prepared.train, "test")
        ours = models.LlamaForCausalLM.from_pretrained(str(tiny_model))  # documents apart
        found = evaluate(ours, prepared.train, loader, groups_of(loader))
    expected = {name: loss / count for name, (loss, count) in sums.items()}
    assert found.by_source == pytest.approx(expected, rel=1e-5)  # float32 in another order
    total = sum(loss for loss, _ in sums.values()) / sum(count for _, count in sums.values())
    assert found.loss == pytest.approx(total, rel=1e-5)


def loss_without_logits(told: bool) -> Callable[..., Any]:
    """Return a forward pass of a Llama as kernels compute it, which tell losses or do not."""

    def forward(
        self: Any, labels: torch.Tensor, num_items_in_batch: float, **inputs: Any
    ) -> CausalLMOutputWithPast:
        hidden = self.model(**inputs).last_hidden_state
        tell = self.token_losses if told else None
        weight = self.lm_head.weight
        loss = vocabulary_loss(hidden, weight, labelled(labels), num_items_in_batch, tell)
        return CausalLMOutputWithPast(loss=loss)

    return forward


@pytest.mark.parametrize("strategy", ["packing", "padding"])
@pytest.mark.parametrize("computed", ["with logits", "told", "followed"])
def test_the_training_loss_of_a_source_is_that_of_its_labels_in_the_step(
    prepared: Run,
    tiny_model: Path,
    strategy: str,
    computed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compared with transformers' own loss, a document at a time."""
    prepared.train.batching_strategy = strategy
    with activate(prepared):
        assert prepared.dataset is not None
        loader = get_dataloader(prepared.tokenizer, prepared.dataset, prepared.train, "train")
        model = models.LlamaForCausalLM.from_pretrained(str(tiny_model)).train()
    some = slice(0, None, len(loader) // 30)
    batches = list(loader)[some]
    documents = data_of(prepared).splits["train"]
    assert isinstance(documents, MixedRows)
    chosen = [row for rows in list(loader.batch_sampler)[some] for row in rows]  # type: ignore[call-overload]
    if strategy == "packing":
        chosen = [each for row in chosen for each in loader.dataset.documents_of(row).tolist()]  # type: ignore[attr-defined]
    sums = {name: [0.0, 0] for name in documents.names}
    plain = LlamaForCausalLM.from_pretrained(tiny_model)
    for row in chosen:
        ids, labels = (torch.tensor(each.tolist())[None] for each in documents.arrays(row))
        count = int((labels[:, 1:] >= 0).sum())
        with torch.no_grad():
            loss = float(plain(input_ids=ids, labels=labels).loss) * count
        so_far = sums[documents.names[documents.sources[row]]]
        so_far[0] += loss
        so_far[1] += count
    if computed != "with logits":
        forward = loss_without_logits(computed == "told")
        monkeypatch.setattr(type(model), "forward", forward)
    stepper = Stepper(
        model, torch.optim.SGD(model.parameters(), 0.0), prepared.train, documents.names
    )
    sync = sync_step(batches, report=False, sources=3)
    assert sync.source_tokens == tuple(count for _, count in sums.values())
    assert min(sync.source_tokens) > 0
    figures = stepper.step(batches, sync.label_tokens)
    expected = [total for total, _ in sums.values()]
    assert figures.source_sums.tolist() == pytest.approx(expected, rel=1e-5)  # in another order
    assert float(figures.source_sums.sum()) / sync.label_tokens == pytest.approx(
        float(figures.values[0]), rel=1e-6
    )
    assert not {"_loss_function", "token_losses"} & vars(model).keys()


def test_weights_are_part_of_what_a_resumed_run_must_share(
    prepared: Run, tiny_run: dict[str, Any], files: dict[str, Rows]
) -> None:
    first = data_of(prepared).fingerprints
    flags = dict(prepared.flags)
    named = "mixed_dataset.sources"
    doubled = resolve(
        flags
        | {
            named: ",".join(
                f"{each.rpartition(':')[0]}:{float(each.rpartition(':')[2]) * 2}"
                for each in flags[named].split(",")
            )
        }
    )
    other = resolve(flags | {named: flags[named].replace("0.5", "0.6")})
    assert prepare_data(doubled).fingerprints == first  # the same shares
    assert prepare_data(other).fingerprints["train"] != first["train"]


PROBLEMS = {
    "grammar_dataset:-1,samsum_dataset:1": ["the weight of grammar_dataset is -1"],
    "grammar_dataset:0,samsum_dataset:x": [
        "the weight of grammar_dataset is 0",
        "the weight of samsum_dataset is x",
    ],
    "grammar_dataset:nan,samsum_dataset:inf": [
        "the weight of grammar_dataset is nan",
        "the weight of samsum_dataset is inf",
    ],
    "grammar_dataset,samsum_dataset:1": ["--dataset names grammar_dataset without a weight"],
    "grammar_dataset:,samsum_dataset:1": ["--dataset names grammar_dataset without a weight"],
    "grammar_dataset,samsum_dataset": [
        "--dataset names grammar_dataset without a weight",
        "--dataset names samsum_dataset without a weight",
    ],
    "grammar_dataset:1,,samsum_dataset:1": ["--dataset has a source without a name"],
    "grammar_dataset:1,grammar_dataset:2": ["--dataset names grammar_dataset twice"],
    "a/b.jsonl:1,a/../a/b.jsonl:2": ["--dataset names a/../a/b.jsonl twice"],
    "grammar_datset:1,samsum_dataset:1": ["unknown data set grammar_datset in --dataset"],
    "mixed_dataset:1,samsum_dataset:1": ["unknown data set mixed_dataset in --dataset"],
    "grammar_dataset:2": ["--dataset grammar_dataset:2 names one data set"],
}


def problems_of(dataset: str, **flags: Any) -> list[str]:
    run = resolve(with_data_path({"dataset": dataset} | flags)[0])
    return [problem.what for problem in check_mixture(run)]


@pytest.mark.parametrize("named", PROBLEMS)
def test_a_mixture_that_cannot_be_is_a_problem_in_words(named: str) -> None:
    assert problems_of(named) == PROBLEMS[named]


def test_flags_that_mean_several_sources_are_problems() -> None:
    two = "grammar_dataset:1,samsum_dataset:1"
    assert problems_of(two, train_split="x.csv") == ["--train_split with a mixture"]
    assert problems_of(two, **{"grammar_dataset.train_split": "x.csv"}) == []
    files = "a.jsonl:1,b.jsonl:2"
    for field, value in (("streaming", True), ("validation_path", "c"), ("data_path", "c")):
        flag = f"local_dataset.{field}"
        assert problems_of(files, **{flag: value}) == [
            f"--{flag} with a mixture" + (" of files" if field == "data_path" else "")
        ]


def test_each_source_has_its_own_configuration() -> None:
    named = "a/x.jsonl:1,b/x.jsonl:2,grammar_dataset:1"
    flags = {"dataset": named, "grammar_dataset.train_split": "t.csv", "template": "none"}
    sources = resolve(with_data_path(flags)[0]).mixed
    assert [source.name for source in sources] == ["x.jsonl", "x.jsonl-2", "grammar_dataset"]
    assert [source.weight for source in sources] == [1, 2, 1]
    configs: list[Any] = [source.config for source in sources]
    assert [config.data_path for config in configs[:2]] == ["a/x.jsonl", "b/x.jsonl"]
    assert [config.template for config in configs[:2]] == ["none", "none"]
    assert configs[2].train_split == "t.csv"


def test_ranks_may_have_a_mixtures_files_elsewhere() -> None:
    def told(named: str) -> str:
        return _flags(resolve(with_data_path({"dataset": named})[0]))["--mixed_dataset.sources"]

    assert told("a/x.jsonl:1,grammar_dataset:1") == told("/b/x.jsonl:1,grammar_dataset:1.0")
    assert told("a/x.jsonl:1,grammar_dataset:1") != told("a/x.jsonl:2,grammar_dataset:1")
    assert told("a/x.jsonl:1,grammar_dataset:1") != told("a/y.jsonl:1,grammar_dataset:1")


def test_a_file_whose_name_looks_like_a_mixture_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a:1,b:2"
    path.write_text('{"text": "a"}\n')
    flags, _ = with_data_path({"dataset": str(path)})
    assert flags == {"dataset": "local_dataset", "local_dataset.data_path": str(path)}
    assert with_data_path({"dataset": "samsum_dataset"})[0] == {"dataset": "samsum_dataset"}
    assert with_data_path({"dataset": "mine.py:load"})[0] == {"dataset": "mine.py:load"}


COLLATOR = """
def get_custom_dataset(config, tokenizer, split):
    return [{"input_ids": [5, 6, 1], "labels": [-100, 6, 1], "attention_mask": [1, 1, 1]}] * 4
def get_data_collator(tokenizer):
    return lambda rows: rows
"""


def test_a_collator_of_its_own_cannot_be_mixed(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COLLATOR)
    flags = tiny_run | {
        "dataset": "custom_dataset:1,grammar_dataset:1",
        "custom_dataset.file": str(tmp_path / "mine.py"),
        "batching_strategy": "padding",
    }
    with pytest.raises(UsageError, match="custom_dataset in a mixture"):
        prepare_data(resolve(with_data_path(flags)[0]))
    packed = with_data_path(flags | {"batching_strategy": "packing"})[0]
    assert isinstance(prepare_data(resolve(packed)).splits["train"], MixedRows)


def test_a_source_that_would_come_a_thousand_times_is_refused(
    tiny_run: dict[str, Any], files: dict[str, Rows]
) -> None:
    named = f"{next(iter(files))}:1,grammar_dataset:0.0001"
    with pytest.raises(UsageError, match=r"long\.jsonl would come .* times in an epoch"):
        prepare_data(resolve(with_data_path(tiny_run | {"dataset": named})[0]))
