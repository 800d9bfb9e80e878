"""The page of runs: what it shows, of damaged records and odd names too, and nothing it loads."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.cli import main
from llama_recipes_local.reports.line_chart import Line, line_chart, number, ticks


def make_run(folder: Path, losses: list[Any], **train: Any) -> Path:
    folder.mkdir()
    steps = [
        {"step": step, "loss": loss, "lr": 1e-4, "tokens_per_second": 1234.5, "seconds": step * 2.0}
        for step, loss in enumerate(losses, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    validations = [{"step": 0, "loss": 2.5, "gleu": 0.1}, {"step": 9, "loss": 1.25, "gleu": 0.4}]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(v) + "\n" for v in validations))
    record = {
        "train_config": {"lr": 1e-4, "seed": 42, "dataset": "grammar_dataset"} | train,
        "grammar_dataset": {"train_split": "a.csv"},
        "versions": {"torch": "2.13.0"},
        "finished": "2026-01-02 03:04:05",
    }
    (folder / "run_config.json").write_text(json.dumps(record))
    audit = {"train": {"counts": {"records": 70, "bad": 0}, "rows": 70, "tokens": 12345}}
    (folder / "data_audit.json").write_text(json.dumps(audit))
    return folder


class Checked(HTMLParser):
    """Holds the text of a page, and fails where an element is not closed in its place."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.lines = 0
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.lines += tag == "polyline"
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.lines += tag == "polyline"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [3.0, 2.0, 1.5], lr=3e-4)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    content = (run / "report.html").read_text("utf-8")
    page = Checked(content)
    for expected in ("finished 2026-01-02", "12,345", "records", "0.0003", "2.13.0", "a.csv"):
        assert expected in page.text
    assert "seed" not in page.text  # 42 is the default
    assert page.lines == 4 + 2  # loss, rate, speed and time; validation loss and GLEU
    assert "training loss. run: 3 at first, 1.5 at last." in content
    # nothing is loaded from anywhere, and nothing runs
    assert not re.search(r"https?://|<script|<link|url\(|@import|\bsrc=", content)
    assert "prefers-color-scheme: dark" in content


def test_runs_side_by_side(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", [3.0, 2.0], lr=1e-4)
    two = make_run(tmp_path / "two", [3.0, 1.0], lr=2e-4)
    out = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    content = out.read_text("utf-8")
    page = Checked(content)
    assert page.text.count("one") >= 2 and "2 runs" in page.text
    assert '<th scope="row">lr</th><td>0.0001</td><td>0.0002</td>' in content
    assert page.lines == 2 * (4 + 2) + 2  # and the legend's


def test_damaged_lines_and_values_that_are_no_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [3.0, float("nan"), 1.0])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "loss"\n\xff\xfe\n[]\n{"step": "5"}\n')
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert "4 damaged lines" in Checked(content).text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", content, flags=re.DOTALL).lower()


def test_names_and_settings_are_text(tmp_path: Path) -> None:
    name = "<b>run & co\x1b[2J"
    run = make_run(tmp_path / name, [1.0], model_name="<script>alert(1)</script>")
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert "<script" not in content and "<b>" not in content and "\x1b" not in content
    assert r"<b>run & co\x1b[2J" in Checked(content).text


def test_a_run_with_its_steps_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert main(["report", str(tmp_path)]) == 0
    page = Checked((tmp_path / "report.html").read_text("utf-8"))
    assert page.lines == 1
    assert "without run_config.json" in page.text and "not finished" not in page.text


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), str(tmp_path / "nothing")]) == 2
    err = capsys.readouterr().err
    assert "2 problems found" in err and "no run in" in err and "nothing does not exist" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (1.1, 1.9, [1.2, 1.4, 1.6, 1.8]), (-3e-5, 3e-5, None)],
)
def test_ticks_are_round(low: float, high: float, want: list[float] | None) -> None:
    got = ticks(low, high)
    assert 3 <= len(got) <= 7 and low <= got[0] and got[-1] <= high
    assert want is None or got == pytest.approx(want)


def test_numbers() -> None:
    values = [0, 1.0, 12345, 0.12345, 1.5, 33153.4, 0.00012, 2.5e7, -0.5]
    want = ["0", "1", "12,345", "0.1235", "1.5", "33,153", "0.00012", "2.5e+07", "-0.5"]
    assert [number(value) for value in values] == want


def test_a_chart_of_one_value_and_of_many() -> None:
    assert line_chart("t", "step", [Line("a", [(1, 5.0)], 0)]).count("<circle") == 1
    assert line_chart("t", "step", [Line("a", [(1, float("inf"))], 0)]) == ""
    many = line_chart("t", "step", [Line("a", [(x, x % 7) for x in range(100_000)], 0)])
    assert len(many) < 20_000


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ([3.0, 2.0, NAN], "NaN"),
        ([NAN], "NaN"),
        ([1e308, -1e308], "-1e+308"),
        ([5e-324, 1e-323], "9.88e-324"),
        ([10**400, 1], "1"),
    ],
)
def test_losses_that_no_chart_can_show(tmp_path: Path, losses: list[Any], shown: str) -> None:
    run = make_run(tmp_path / "run", losses)
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert f'<th scope="row">training loss, last</th><td>{shown}</td>' in content
    count = sum(loss != loss for loss in losses)
    expected = f'<th scope="row">steps whose loss is not finite</th><td>{count}</td>'
    assert (expected in content) == (count > 0)


def test_the_lowest_validation_is_a_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [1.0])
    rows = [{"step": 1, "loss": NAN}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.5}]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert '<th scope="row">validation loss, lowest</th><td>1.5</td>' in content


def test_a_step_too_large_for_a_chart_is_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": {10**400}}}\n{{"step": 1, "loss": 2.0}}\n')
    assert main(["report", str(tmp_path)]) == 0
    assert "1 damaged lines" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "audit", ['{"train": {"counts": [], "endings": "x", "rows": NaN}}', '{"train": 1}']
)
def test_an_audit_with_other_values(tmp_path: Path, audit: str) -> None:
    run = make_run(tmp_path / "run", [1.0])
    (run / "data_audit.json").write_text(audit)
    assert main(["report", str(run)]) == 0


def test_an_audit_that_is_no_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [1.0])
    (run / "data_audit.json").write_text("[]")
    assert main(["report", str(run)]) == 2
    assert "is not the table of a run's data" in capsys.readouterr().err


def test_where_no_page_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [1.0])
    os.mkfifo(tmp_path / "pipe.html")
    (run / "steps").write_text("kept")
    for name, why in {
        "run": "is a folder",
        "nothing/page.html": "nothing is not a writable folder",
        "pipe.html": "a device or a pipe",
        "run/steps": "it is no page",
    }.items():
        assert main(["report", str(run), "--out", str(tmp_path / name)]) == 2
        assert why in capsys.readouterr().err
    assert (tmp_path / "pipe.html").is_fifo() and (run / "steps").read_text() == "kept"


def test_labels_of_an_axis_differ() -> None:
    points = [(x, 12.3456 + x * 1e-5) for x in range(5)]
    chart = line_chart("t", "step", [Line("a", points, 0)])
    labels = re.findall('text-anchor="end">([^<]*)<', chart)
    assert len(labels) > 3 and len(set(labels)) == len(labels)


def test_a_checkpoint_is_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [1.0])
    (run / "checkpoint-1").mkdir()
    assert main(["report", str(run / "checkpoint-1")]) == 2
    assert f"fix: give {run}" in capsys.readouterr().err
