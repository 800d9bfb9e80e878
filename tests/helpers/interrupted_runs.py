"""Fine-tunings that are interrupted and resumed, in forks of one process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("run_server.py")
# 60 rows in global batches of 10: six steps an epoch, two epochs
STEPS, ROWS = 12, 10


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        codes: the ranks' exit codes.
        output: its folder.
        logs: the output of each rank, in this run and earlier ones in the same folder.
    """

    codes: list[int]
    output: Path
    logs: list[str]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return lines(self.output / "metrics.jsonl")

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        return lines(self.output / "evaluations.jsonl")

    @property
    def checkpoints(self) -> list[int]:
        return sorted(int(path.name.split("-")[1]) for path in self.output.glob("checkpoint-*"))

    def samples(self, ranks: int) -> dict[int, list[list[int]]]:
        """The rows of each step's global batch; a repeated step has the same rows."""
        steps: dict[int, list[list[int]]] = {}
        for rank in range(ranks):
            own = {}
            for line in lines(self.output / "logs" / f"samples-{rank}.jsonl"):
                assert own.setdefault(line["step"], line["rows"]) == line["rows"]
            for step, rows in own.items():
                steps.setdefault(step, []).extend(rows)
        return steps


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class Runs:
    """Starts runs, one after another, in one server process."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )

    def __call__(
        self,
        output: Path,
        flags: dict[str, Any],
        ranks: int = 1,
        trigger: dict[str, Any] | None = None,
        **more: Any,
    ) -> Ended:
        """Run with the flags in ``output`` on ``ranks`` ranks; see the server for the others."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        logs = output / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        flags = flags | {
            "output_dir": str(output),
            "dist_checkpoint_root_folder": str(output / "full"),
            "batch_size_training": ROWS // ranks,
        }
        request = {"flags": flags, "ranks": ranks, "logs": str(logs), "trigger": trigger, **more}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        codes = json.loads(self.server.stdout.readline())
        texts = [(logs / f"{rank}.log").read_text() for rank in range(ranks)]
        return Ended(codes, output, texts)

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()
