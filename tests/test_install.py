"""The built wheel, installed into an empty environment, does the main job out of the checkout."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.install

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The Python of a new environment that holds the wheel and what pip installs with it."""
    folder = tmp_path_factory.mktemp("empty-environment")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)]
    subprocess.run(build, check=True, env=environment)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    constraints = str(PROJECT / "constraints.txt")
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)]
    subprocess.run(install, check=True, env=_out_of_reach(environment))
    return python


def _out_of_reach(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}


@pytest.mark.timeout(1800)
def test_installed_package_fine_tunes_from_another_folder(
    installed, environment, tiny_model, grammar_data, tmp_path
):
    def run(*command: str) -> str:
        done = subprocess.run(
            [str(installed), *command],
            cwd=tmp_path,
            env=_out_of_reach(environment),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "from llama_recipes_local import configs; print(configs.__file__, configs.train_config())"
    )
    printed = run("-c", code)
    assert str(PROJECT) not in printed
    assert "context_length=4096" in printed

    flags = [f"--model_name={tiny_model}", f"--data_root={grammar_data}", "--context_length=256"]
    flags += ["--use_peft", "--dataset=grammar_dataset", "--max_train_step=2", "--output_dir=out"]
    printed = run("-m", "llama_recipes_local", "finetune", *flags)
    assert "perplexity" in printed and "before, " in printed and " after" in printed
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()

    prompt = ["--dataset", "grammar_dataset", "--prompt", "She go home.", "--max_new_tokens", "4"]
    run("-m", "llama_recipes_local", "generate", "--adapter", "out", *prompt)
