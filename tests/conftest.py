"""What most tests share: a tiny model, a little real data, and the command line in a subprocess."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import Runs

from llama_recipes_local.data import cache
from llama_recipes_local.storage import data_root

pytest_plugins = ["process_markers"]
PROJECT = Path(__file__).resolve().parents[1]
UPSTREAM_GRAMMAR = PROJECT / "llama_recipes_local/_vendor/llama_recipes/datasets/grammar_dataset"
TORCHRUN_VARIABLES = (
    "GROUP_RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "WORLD_SIZE",
)
# importing this package sets these; a subprocess must set them itself
SET_BY_IMPORT = (
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "OMP_WAIT_POLICY",
    "TRANSFORMERS_OFFLINE",
)

RunFinetuning = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def token_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of tokens other than the user's."""
    return tmp_path_factory.mktemp("token-cache")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, token_cache: Path) -> None:
    """Run each test as one process without a data root, whatever the shell's environment."""
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(token_cache))
    for name in (data_root.ENVIRONMENT_VARIABLE, *TORCHRUN_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def environment(token_cache: Path) -> dict[str, str]:
    """A user's environment for a subprocess: no switch, rank or data root; this checkout.

    It does not name the service process of wandb either, if a test has started one here.
    """
    own = (data_root.ENVIRONMENT_VARIABLE, "WANDB_SERVICE")
    dropped = {*own, *TORCHRUN_VARIABLES, *SET_BY_IMPORT}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    places = [str(PROJECT), kept.get("PYTHONPATH", "")]
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        cache.ENVIRONMENT_VARIABLE: str(token_cache),
    }


@pytest.fixture(scope="session")
def grammar_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 60 training and 20 validation rows of upstream's real grammar data."""
    root = tmp_path_factory.mktemp("data-root")
    folder = root / "datasets" / "grammar"
    folder.mkdir(parents=True)
    for name, rows in (("gtrain_10k.csv", 60), ("grammar_validation.csv", 20)):
        with (UPSTREAM_GRAMMAR / name).open(encoding="utf-8-sig", newline="") as full:
            lines = [row for row, _ in zip(csv.reader(full), range(rows + 1), strict=False)]
        with (folder / name).open("w", encoding="utf-8-sig", newline="") as cut:
            csv.writer(cut).writerows(lines)
    return root


@pytest.fixture(scope="session")
def tiny_model(grammar_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer Llama with random weights, and its byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    with (grammar_data / "datasets/grammar/gtrain_10k.csv").open(encoding="utf-8-sig") as file:
        sentences = [cell for row in csv.reader(file) for cell in row]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sentences, trainer)
    # as Llama's own: <s> goes before a text unless special tokens are left out
    bpe.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_model: Path, grammar_data: Path) -> dict[str, Any]:
    """The flags of a run of the tiny model on the grammar data, read in this process."""
    return {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "num_workers_dataloader": 0,
    }


@pytest.fixture(scope="session")
def run_finetuning(environment: dict[str, str]) -> RunFinetuning:
    """Runs ``finetuning.py`` with flags in a subprocess; it need not succeed.

    ``run_finetuning(*flags, cwd, nproc=None, timeout=600, env=None)``: with ``nproc``, under
    torchrun with that many processes; ``env`` adds environment variables. Output is text.
    """

    def run(
        *flags: object,
        cwd: Path,
        nproc: int | None = None,
        timeout: float = 600,
        env: dict[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable]
        environ = environment | (env or {})
        if nproc:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += ["--nnodes", "1", "--nproc_per_node", str(nproc)]
            environ = {"OMP_NUM_THREADS": "1"} | environ
        command += [str(PROJECT / "finetuning.py"), *map(str, flags)]
        return subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture(scope="session")
def runs(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Runs fine-tunings in forks of one process, on one rank or several; some are interrupted."""
    server = Runs(environment, tmp_path_factory.mktemp("server") / "log")
    yield server
    server.close()
