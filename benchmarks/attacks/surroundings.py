"""What a run is given around its data: environment, flags, commands without a network, fuzz."""

import json
import os
import re
from functools import partial
from typing import Any

from forked_runs import fork, wait

from attacks.lab import COMMANDS, FINETUNE, PYTHON, ROOT, Found, Lab, unclean, unexpected

GROUP = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    *({"RANK": "1"}, {"RANK": "x"}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "4"}),
    *({"LOCAL_RANK": "3"}, {"RANK": "-1"}, {"RANK": "1", "LOCAL_RANK": "1"}),
    *(GROUP, GROUP | {"MASTER_PORT": "x"}, GROUP | {"MASTER_PORT": "0"}),
    GROUP | {"MASTER_PORT": "1", "RANK": "5", "MASTER_ADDR": "a"},
    GROUP | {"MASTER_PORT": "1", "RANK": "2"},
    GROUP | {"MASTER_PORT": "1", "WORLD_SIZE": "0"},
)
PATHS = ("local_dataset.data_path", "output_dir", "model_name", "tokenizer_name", "data_cache")
WORDS = ("lr", "peft_method", "batch_size_training", "save_steps", "batching_strategy", "dataset")
BAD = ("", "x" * 300, "\x1b[2J\n   fix: rm", "a\0b", "nan", "1e999", "[1]", "-1", "None", "two")
MAY_BE = {("data_cache", ""): (0,), ("data_cache", BAD[2]): (0,)}
"""Values that a flag may have: no folder for tokens is the usual one, and no command names it."""
KEPT = (
    "run#1",
    "2024_11_27",
    "1e3",
    "007",
    "a,b",
    "it's",
    '"x"',
    "中文",
    "a b",
    "{}",
    "True",
    "-x",
)
"""Names that are kept as they were typed."""


def environment(lab: Lab, found: Found) -> None:
    """Run in half-set and wrong environments: each is refused."""
    for case in ENVIRONMENTS:
        with lab.output() as output:
            run = fork(lab.flags(output), lab.log, partial(os.environ.update, case))
            wrong = unexpected(wait(run, 30), (2,)) or unclean(lab.said())
            found.add(str(case), wrong, lab.said())


def flags(lab: Lab, found: Found) -> None:
    """Give flags values that they cannot have, and names that look like something else."""
    for name in (*PATHS, *WORDS):
        for value in BAD if name in WORDS else BAD[:4]:
            with lab.output() as output:
                [code] = lab.run_ranks(lab.flags(output, **{name: value}))
                codes = MAY_BE.get((name, value), (2,))
                wrong = unexpected(code, codes) or unclean(lab.said())
                found.add(f"--{name}={value[:20]!r}", wrong, lab.said())
    for name in KEPT:
        with lab.output() as folder:
            folder.mkdir()
            words = [*FINETUNE, *lab.words(folder / name), "--max_train_step", "1"]
            code, said = lab.run(*words)
            made = sorted(path.name for path in folder.iterdir())
            wrong = unexpected(code, (0,)) or unclean(said)
            found.add(name, wrong or ("" if made == [name] else f"{made} was made"), said)


def network(lab: Lab, found: Found) -> None:
    """Run the commands in a network of their own, whose interfaces count packets."""
    for name, words in commands(lab).items():
        inner = " ".join(f"'{word}'" for word in words) + "; c=$?; cat /proc/net/dev; exit $c"
        code, said = lab.run("unshare", "-n", "sh", "-c", inner)
        counts = [
            int(n) for line in re.findall(r"^ *\w+: *(\d.*)$", said, re.M) for n in line.split()
        ]
        wrong = unclean(said) or unexpected(code, (0,))
        if not counts or any(counts):
            wrong = wrong or f"packets: {counts}"
        found.add(name, wrong, said)


def commands(lab: Lab) -> dict[str, list[Any]]:
    """Return a command line of each command."""
    adapter, data = lab.straight, ["--dataset", "local_dataset"]
    data += ["--local_dataset.data_path", str(lab.data)]
    few = ["--max_new_tokens", "4"]
    logged = {"report_to": "tensorboard,wandb,mlflow"}
    return {
        "finetune": [*FINETUNE, *lab.words(lab.folder / "offline")],
        "finetune, logged": [*FINETUNE, *lab.words(lab.folder / "offline-2", **logged)],
        "generate": [*COMMANDS, "generate", "--adapter", adapter, "--prompt", "Count.", *few],
        "inspect": [*COMMANDS, "inspect", "--model_name", lab.model, *data],
        "merge": [*COMMANDS, "merge", "--adapter", adapter, "--out", lab.folder / "merged"],
        "evaluate": [*COMMANDS, "evaluate", "--adapter", adapter, "--metrics", "loss"],
        "sft": [PYTHON, ROOT / "sft.py", *sft_flags(lab)],
    }


def sft_flags(lab: Lab) -> list[str]:
    """Return the flags of a short run of ``sft.py``."""
    values = {"model_name": lab.model, "dataset_name": lab.data, "max_steps": 2}
    values |= {"output_dir": lab.folder / "sft", "max_length": 64}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def broken_input(lab: Lab, found: Found) -> None:
    """Break input as ``make fuzz`` does, with another seed."""
    words = [PYTHON, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", ROOT / "tests/fuzz"]
    code, said = lab.run(*words, seconds=3000, FUZZ=str(12 * lab.times), FUZZ_SEED="13")
    for subject, ends in re.findall(r"([\w. 7]+): (\{'[^}]*\})", said):
        cases = sum(json.loads(ends.replace("'", '"')).values())
        found.notes[subject.strip(" .")] = cases
        found.attacks += cases
    failures = re.findall(r"(\d+) of (\d+) cases of ([\w. ]+); .*", said)
    for failed, of, subject in failures:
        found.attacks += int(of)
        found.problems += [f"{subject}: {failed}"] * int(failed)
    if code and not failures:
        found.add("pytest", f"exit code {code}", said)
