"""Fills a run's flags into the job files of this folder, which lie beside it to be copied too."""

import json
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.screen import shell_command

_FOLDER = Path(__file__).parent
_RESUME = "--resume_from_checkpoint"
_SLURM_HEAD = """\
#!/usr/bin/env bash
# Fine-tune under Slurm: sbatch FILE, in the folder with finetuning.py, which all nodes see. At the
# time limit or a preemption it saves and is requeued; each start resumes.
"""


def slurm_script(flags: Sequence[str], nodes: int, gpus: int) -> str:
    """Return a script for sbatch.

    Args:
        flags: words for ``finetuning.py``, ``--enable_fsdp`` among them if several ranks train.
        nodes: machines that train together.
        gpus: GPUs of each.
    """
    _, body = (_FOLDER / "slurm.sh").read_text("utf-8").split("\n\n", 1)
    resumes = any(word.startswith(_RESUME) for word in flags)
    given = shell_command(["finetuning.py", *flags])
    changes = {
        "--nodes=2": f"--nodes={nodes}",
        "--gpus-per-node=8": f"--gpus-per-node={gpus}",
        'finetuning.py --enable_fsdp "$@"': given + ' "$@"',
    }
    if resumes:
        changes[f" {_RESUME} auto"] = ""
    return f"{_SLURM_HEAD}\n{_replaced(body, changes)}"


def kubernetes_job(flags: Sequence[str], gpus: int) -> str:
    """Return a Job for kubectl, which trains on one node.

    Args:
        flags: words for ``finetuning.py``, ``--enable_fsdp`` among them if several ranks train.
        gpus: GPUs of the node.
    """
    text = (_FOLDER / "kubernetes.yaml").read_text("utf-8")
    resumes = any(word.startswith(_RESUME) for word in flags)
    words = ["--nproc_per_node", str(gpus), "finetuning.py", *flags]
    words += [] if resumes else [_RESUME, "auto"]
    old = 'args: ["--nproc_per_node", "8", "finetuning.py"]'
    words = [word.replace("$", "$$") for word in words]  # Kubernetes reads $(NAME), and $$ as $
    lines = "".join(f"\n            - {json.dumps(word, ensure_ascii=False)}" for word in words)
    return _replaced(text, {old: f"args:{lines}", "nvidia.com/gpu: 8": f"nvidia.com/gpu: {gpus}"})


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
