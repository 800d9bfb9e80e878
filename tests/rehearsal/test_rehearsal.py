"""``--rehearse``: the user's command on a small model, from data to report."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig

from llama_recipes_local.finetuning import main
from llama_recipes_local.model_folders.weight_files import is_without_weights
from llama_recipes_local.preflight.launch_rules import check_rehearsal
from llama_recipes_local.rehearsal import beginning
from llama_recipes_local.rehearsal.performance import StageError, stage
from llama_recipes_local.rehearsal.small_model import LAYERS, WIDTH, small_config
from llama_recipes_local.rehearsal.small_run import small_run
from llama_recipes_local.run.resolution import resolve

STAGES = ["small model", "train", "kill", "resume", "compare", "merge", "generate"]
STAGES += ["evaluate", "report"]
LLAMAS = {  # heads, key-value heads, hidden size, vocabulary
    "Llama 2 7B": (32, 32, 4096, 32000),
    "Llama 2 13B": (40, 40, 5120, 32000),
    "Llama 3.1 8B": (32, 8, 4096, 128256),
    "Llama 3.1 70B": (64, 8, 8192, 128256),
    "SmolLM2 135M": (9, 3, 576, 49152),
    "odd": (25, 25, 1600, 50000),
}


@pytest.mark.command
def test_a_run_is_rehearsed_from_data_to_report(
    tiny_run: dict[str, Any], run_finetuning: Any, tmp_path: Path
) -> None:
    output = tmp_path / "results" / "out"
    flags = tiny_run | {"output_dir": output, "context_length": 128, "lr": 1e-3, "r": 32}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    done = run_finetuning(*words, "--use_peft", "--rehearse", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("--> rehearsed: ")]
    assert [line.split(": ")[1] for line in said] == STAGES
    assert "SIGKILL in step 4 of 6" in said[2] and "equal to the bit" in said[4]
    assert "--r 16, not 32" in done.stdout and "--batch_size_training 2, not 4" in done.stdout
    assert "\nplan (no GPU here" in done.stdout and "--dry_run" not in done.stdout
    # nothing is left but what starts the run itself
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert written == ["results", "results/out-job.sh", "results/out-job.yaml"]
    job = yaml.safe_load((tmp_path / "results" / "out-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"--r", "32", "--use_peft"} <= set(container["args"])
    assert "--activation_policy auto" in " ".join(container["args"])  # its GPU is not known here
    assert "--rehearse" not in container["args"]


@pytest.mark.parametrize("name", LLAMAS)
def test_the_small_model_has_the_vocabulary_heads_and_rotation_of_the_large_one(name: str) -> None:
    heads, keys, hidden, vocabulary = LLAMAS[name]
    rotation = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}
    rotation |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rotation |= {"original_max_position_embeddings": 8192}
    large = {"num_attention_heads": heads, "num_key_value_heads": keys, "vocab_size": vocabulary}
    large |= {"hidden_size": hidden, "num_hidden_layers": 80, "rope_parameters": rotation}
    small = small_config(large)
    assert {name: small[name] for name in large.keys() - {"hidden_size", "num_hidden_layers"}} == {
        name: large[name] for name in large.keys() - {"hidden_size", "num_hidden_layers"}
    }
    config = LlamaConfig(**small)
    assert config.num_hidden_layers == LAYERS
    # PEFT's prefix tuning takes the size of a head from these two
    assert config.hidden_size == heads * config.head_dim <= max(WIDTH, heads * 8)
    # bitsandbytes' blocks, of each projection
    sizes = (config.hidden_size, keys * config.head_dim, config.intermediate_size)
    assert all(size * config.hidden_size % 64 == 0 for size in sizes)


def test_what_is_for_a_gpu_is_left_out_and_named(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    flags = tiny_run | {"output_dir": "out", "use_peft": True, "fp8": True, "use_fp16": True}
    flags |= {"lora_config.r": 64, "context_length": 64, "resume_from_checkpoint": "auto"}
    flags |= {"wandb_config.id": "abc", "rehearse": True, "train_config.lr": 5.0}
    small = small_run(resolve(flags), tmp_path)
    gone = {"fp8", "use_fp16", "resume_from_checkpoint", "wandb_config.id", "rehearse"}
    assert not gone & small.flags.keys()
    assert "lora_config.r" not in small.flags and small.flags["r"] == 16
    assert small.flags["train_config.lr"] == 5.0 and small.flags["context_length"] == 64
    assert small.flags["tokenizer_name"] == tiny_run["model_name"]
    differs = {"without --fp8", "without --use_fp16", "--r 16, not 64"}
    assert differs <= set(small.differs)
    assert not any("rehearse" in each or "context" in each for each in small.differs)


def speak_and_end(code: int) -> int:
    print("what went wrong")
    return code


def test_a_stage_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    stage(tmp_path, "sound", partial(speak_and_end, 0))
    with pytest.raises(StageError) as failed:
        stage(tmp_path, "broken", partial(speak_and_end, 3))
    log = tmp_path / "broken-0.log"
    expected = f"broken: it ended with exit code 3; the end of {log}:\n   | what went wrong"
    assert str(failed.value) == expected
    with pytest.raises(StageError, match=f"exit code {-signal.SIGTERM}"):
        stage(tmp_path, "broken", partial(signal.raise_signal, signal.SIGTERM))


def test_a_run_that_was_to_be_killed_and_ends_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="kill: it ended with exit code 0"):
        stage(tmp_path, "kill", partial(speak_and_end, 0), killed=True)


@pytest.mark.parametrize(
    ("failure", "code", "left"),
    [("merge: no", 1, ["failure.txt", "rehearsal.json"]), (KeyboardInterrupt(), 130, None)],
)
def test_what_failed_is_kept_and_what_was_interrupted_is_not(
    failure: str | KeyboardInterrupt,
    code: int,
    left: list[str] | None,
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def perform(words: list[str], environment: dict[str, str]) -> int:
        assert environment["CUDA_VISIBLE_DEVICES"] == "" and "RANK" not in environment
        if isinstance(failure, KeyboardInterrupt):
            raise failure
        Path(words[3]).with_name("failure.txt").write_text(failure)
        return 1

    monkeypatch.setattr(beginning, "_print_what_it_says", perform)
    with pytest.raises(SystemExit) as ended:
        main(
            **tiny_run,
            use_peft=True,
            context_length=128,
            rehearse=True,
            output_dir=str(tmp_path / "out"),
        )
    assert ended.value.code == code
    said = capsys.readouterr().err
    folders = list(tmp_path.glob("*"))
    if left is None:
        assert folders == [] and "stopped by Ctrl-C" in said
        return
    (folder,) = folders
    assert sorted(path.name for path in folder.iterdir()) == left
    assert "the rehearsal failed in merge: no" in said and f"kept in {folder}" in said


def test_a_folder_with_pickled_weights_is_not_one_without(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert is_without_weights(tmp_path)
    for name in ("pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "x.safetensors.part"):
        (tmp_path / name).touch()
        assert not is_without_weights(tmp_path), name
        (tmp_path / name).unlink()


def test_what_cannot_be_rehearsed_is_refused(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    flags = tiny_run | {"model_name": str(tmp_path), "rehearse": True, "dry_run": True}
    found = [problem.what for problem in check_rehearsal(resolve(flags))]
    assert found == ["--rehearse with --dry_run", "--rehearse with a vision model"]
    assert check_rehearsal(resolve(flags | {"rehearse": False})) == []
