"""How a command ends that cannot go on to its own end."""

import subprocess
import sys
from pathlib import Path


def test_a_reader_that_has_enough(environment: dict[str, str], tmp_path: Path) -> None:
    """As ``head`` does, the reader goes before all is written; nothing is said of it."""
    script = tmp_path / "talks.py"
    script.write_text(
        "import sys\n"
        "from llama_recipes_local import cli\n"
        "def talk(*_):\n"
        "    for number in range(100_000):\n"
        "        print(number, flush=True)\n"
        "cli._run = talk\n"
        "sys.exit(cli.main([]))\n"
    )
    talking = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert talking.stdout is not None and talking.stderr is not None
    assert talking.stdout.readline() == "0\n"
    talking.stdout.close()
    assert talking.stderr.read() == ""
    talking.stderr.close()
    assert talking.wait(60) == 1
