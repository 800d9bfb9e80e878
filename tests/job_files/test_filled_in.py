"""The job files that a run's flags are filled into are ones that bash and Kubernetes read."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from llama_recipes_local import job_files
from llama_recipes_local.job_files.filled_in import kubernetes_job, slurm_script

FOLDER = Path(job_files.__file__).parent
FLAGS = ["--enable_fsdp", "--model_name", "/models/Llama 2's", "--dataset", "数据.jsonl"]
FLAGS += ["--output_dir", "/out/$(HOME) of $$x"]


def run_under_slurm(script: str, folder: Path, ends: str = "exit 0") -> list[str]:
    """Run a script with commands in the place of Slurm's; return the words that srun was given."""
    commands = {
        "scontrol": 'echo "$@" >> scontrol_words; echo one',
        "srun": f'printf "%s\\n" "$@" > words; {ends}',
    }
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (folder / name).chmod(0o755)
    (folder / "job.sh").write_text(script, "utf-8")
    slurm = {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "1"}
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "job.sh"], cwd=folder, env={**os.environ, **slurm, **path})
    assert done.returncode == int(ends.split()[-1])
    return (folder / "words").read_text("utf-8").splitlines()


def as_kubernetes_reads(word: str) -> str:
    """Return an argument of a container with $(HOME) in its environment."""
    return re.sub(r"\$(\$|\(HOME\))", lambda found: "$" if found[1] == "$" else "/root", word)


@pytest.mark.command
@pytest.mark.parametrize("own", [[], ["--resume_from_checkpoint=out/checkpoint-2"]])
def test_a_slurm_script_has_the_flags_as_they_were_given(own: list[str], tmp_path: Path) -> None:
    script = slurm_script([*FLAGS, *own], nodes=3, gpus=4)
    asked = dict(re.findall("^#SBATCH --(nodes|gpus-per-node)=(.*)", script, re.MULTILINE))
    assert asked == {"nodes": "3", "gpus-per-node": "4"}
    words = run_under_slurm(script, tmp_path)
    after = words[words.index("finetuning.py") + 1 :]
    assert after == [*FLAGS, *(own or ["--resume_from_checkpoint", "auto"])]


@pytest.mark.command
@pytest.mark.parametrize(
    ("ends", "requeued"),
    [
        ("exit 0", False),
        ("exit 2", False),
        ("exit 75", True),  # a preemption: Slurm signals srun, and not the script
    ],
)
def test_a_job_that_was_signalled_is_requeued(ends: str, requeued: bool, tmp_path: Path) -> None:
    run_under_slurm((FOLDER / "slurm.sh").read_text("utf-8"), tmp_path, ends)
    told = (tmp_path / "scontrol_words").read_text("utf-8").splitlines()
    assert ("requeue 1" in told) == requeued


@pytest.mark.parametrize("own", [[], ["--resume_from_checkpoint=out/checkpoint-2"]])
def test_a_kubernetes_job_has_the_flags_as_they_were_given(own: list[str]) -> None:
    job = yaml.safe_load(kubernetes_job([*FLAGS, *own], gpus=4))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    resumed = own or ["--resume_from_checkpoint", "auto"]
    assert [as_kubernetes_reads(word) for word in container["args"]] == [
        *("--nproc_per_node", "4", "finetuning.py"),
        *FLAGS,
        *resumed,
    ]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}


def test_the_job_as_it_lies_there_mounts_what_it_names() -> None:
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounted.keys() == {each["name"] for each in pod["volumes"]}
    assert "/bundle/install /workspace/" in container["command"][2]
    assert {mounted["bundle"], mounted["work"]} == {"/bundle", "/workspace"}


def test_an_image_is_made_without_a_network() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    (run,) = (line.split() for line in text.splitlines() if line.startswith("RUN"))
    options, program = run[1 : run.index("sh")], run[run.index("sh") + 1]
    assert program == "/bundle/install" and "--without_driver" in run
    assert [each.split(",")[0] for each in options] == ["--mount=type=bind"]  # buildah has no other
    assert "docker build --network none --build-context bundle=DIR" in text
