"""The page of runs: what it shows, of damaged records and odd names too, and nothing it loads."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from llama_recipes_local.cli import main
from llama_recipes_local.reports import run_charts, run_files, run_page


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
        "code": "0123abcd",
        "machine": {"device": "NVIDIA H200", "ranks": 2},
        "network": {"attempts": 1, "to": ["hub.example"]},
        "data": {"train": "feed5678"},
    }
    (folder / "run_config.json").write_text(json.dumps(record))
    counts = {"records": 70, "bad": 0, "notes": {"a picture": 3}}
    endings = {"stopping": 56, "begin_doubled": 0, "begin_missing": 4}
    audit = {"train": {"counts": counts, "rows": 70, "tokens": 12345, "endings": endings}}
    (folder / "data_audit.json").write_text(json.dumps(audit))
    return folder


class Checked(HTMLParser):
    """Holds the text of a page, and fails where an element is not closed in its place."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.lines = 0
        self.ids: set[str | None] = set()
        self.feed(content)
        assert self.open == []
        links = re.findall('href="([^"]*)"', content)
        assert links and {link.removeprefix("#") for link in links} <= self.ids

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.lines += tag == "polyline"
        names = dict(attrs)
        assert len(names) == len(attrs)
        if "id" in names:
            assert names["id"] not in self.ids
            self.ids.add(names["id"])
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
    for expected in ("0123abcd", "NVIDIA H200", "1 hub.example", "feed5678"):
        assert expected in page.text
    assert "seed" not in page.text  # 42 is the default
    assert page.lines == 3 + 2  # loss, rate and speed; validation loss and GLEU
    words = "training loss by step. run: 3 at first, 1.5 at last, between 1.5 and 3."
    assert f'aria-label="{words}"' in content
    assert "80.0%" in page.text and "begin token missing" in page.text
    assert "begin token doubled" not in page.text  # none is
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
    assert page.lines == 2 * 2 * (3 + 2)  # each in its legend too
    assert "<caption>What differs</caption>" in content


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ([3.0, 2.0, NAN], "NaN"),
        ([NAN], "NaN"),
        ([1e308, -1e308], "-1e+308"),
        ([5e-324, 1e-323], "9.881e-324"),
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


def test_a_checkpoint_is_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [1.0])
    (run / "checkpoint-1").mkdir()
    assert main(["report", str(run / "checkpoint-1")]) == 2
    assert f"fix: give {run}" in capsys.readouterr().err


def test_steps_that_were_done_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [3.0, 2.0, 1.5])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 7.25}\n')
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert "1 lines of steps that were done again" in content
    assert '<th scope="row">2</th><td>7.25</td>' in content


def test_a_million_lines(tmp_path: Path) -> None:
    rows = (f'{{"step":{n},"loss":{n % 97},"tokens":3}}\n' for n in range(1_000_000))
    (tmp_path / "metrics.jsonl").write_text("".join(rows))
    (run,) = run_files.read_runs([tmp_path])
    assert len(run.steps) <= run_files.MOST_ROWS + 1 and run.steps[-1]["step"] == 999_999
    assert max(run_files.tokens_by_step(run.logged).values()) == pytest.approx(3e6, rel=1e-3)
    content = run_page.as_page([run])
    assert "of 1,000,000 lines, one of 50 and the last are read" in Checked(content).text
    assert len(content) < 150_000


def test_tokens_are_those_up_to_the_step(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 2.0, "tokens": 100 * step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "evaluations.jsonl").write_text('{"step": 0, "loss": 3}\n{"step": 2, "loss": 1}\n')
    (run,) = run_files.read_runs([tmp_path])
    (validation,) = run_charts.validation_charts([run], by_tokens=True)
    assert validation.lines[0].points == [(0, 3), (300, 1)]
    assert run_charts.training_charts([run], True)[0].lines[0].points[-1] == (600, 2.0)
    assert "By tokens" in run_page.as_page([run])


def test_losses_of_sources_are_in_one_chart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [1.0])
    rows = [{"step": step, "loss": 2, "loss/a": 1, "loss/b": 3 - step} for step in (0, 1)]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chart,) = run_charts.validation_charts(run_files.read_runs([run]))
    assert [line.name for line in chart.lines] == ["run", "a", "b"]
    rows = [{"step": step, "loss": 2.5, "loss/a": 1, "loss/b": 3.0} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    charts = run_charts.training_charts(run_files.read_runs([run]))
    (chart,) = (each for each in charts if each.title == "training loss by source")
    assert [(line.name, line.points) for line in chart.lines] == [
        ("a", [(1, 1), (2, 1)]),
        ("b", [(1, 3.0), (2, 3.0)]),
    ]


def test_the_sources_of_a_mixture(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [1.0])
    audit = json.loads((run / "data_audit.json").read_text())
    audit["mixture"] = {"a": {"weight": 0.7, "share": 0.6996, "rows": 1234}, "b": 7}
    (run / "data_audit.json").write_text(json.dumps(audit))
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert '<th scope="row">a</th><td>0.7</td><td>0.6996</td><td></td><td>1,234</td>' in content
    assert '<th scope="col">train</th></tr>' in content  # the mixture is no part of the data


def test_a_run_of_sft(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 2.0, "learning_rate": 3e-4, "num_tokens": 50.0, "grad_norm": 1.5},
        {"step": 2, "loss": 1.0, "learning_rate": 1e-4, "num_tokens": 90.0, "grad_norm": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "evaluations.jsonl").write_text('{"step": 2, "eval_loss": 1.25}\n')
    record = {"flags": {"learning_rate": "3e-4", "output_dir": "x"}, "versions": {"trl": "1.29"}}
    (tmp_path / "sft_config.json").write_text(json.dumps(record))
    assert main(["report", str(tmp_path)]) == 0
    content = (tmp_path / "report.html").read_text("utf-8")
    assert '<th scope="row">learning_rate</th><td>3e-4</td>' in content
    assert '<th scope="row">validation loss, last</th><td>1.25</td>' in content
    page = Checked(content)
    assert "by sft.py" in page.text and "output_dir" not in page.text
    assert "1.29" in page.text and "By tokens" in page.text


def test_evaluations_in_its_folder_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [2.0])
    mmlu = {"about": {"benchmark": "mmlu"}, "metrics": {"acc": {"value": 0.5125, "stderr": 0.03}}}
    losses = {
        "about": {"train_config": {"dataset": "samsum_dataset"}},
        "metrics": {"loss": {"value": 1.25, "low": 1.125, "high": 1.5}, "odd": {"value": "no"}},
    }
    forgetting = {
        "about": {"benchmark": "forgetting"},
        "metrics": {"perplexity": {"value": 9.5, "before": 8.25}},
    }
    for name, content in {"": mmlu, "-2": losses, "-3": forgetting}.items():
        (run / f"evaluation{name}.json").write_text(json.dumps(content))
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    text = " ".join(Checked(out.read_text("utf-8")).text.split())
    for words in (
        "evaluation.json, mmlu, acc 0.5125 ± 0.03",
        "evaluation-2.json, samsum_dataset, loss 1.25 1.125 to 1.5",
        "evaluation-3.json, forgetting, perplexity 9.5 8.25",
    ):
        assert words in text, text
    assert "odd" not in text
    (run / "evaluation.json").write_text("[1]")
    assert main(["report", str(run), "--out", str(tmp_path / "other.html")]) == 2


def test_answers_are_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [1.0])
    text = "\u0627" * 5000
    answer = {"prompt": "<script>x</script>", "before": "\u202eabc\x1b[2J", "after": text}
    found = {"answers": [answer | {"reference": 7}, "no answer"], "scored": 32}
    scores = {"gleu_before": 0.25, "gleu_after": 0.5}
    (run / "sample_answers.json").write_text(json.dumps(found | scores))
    assert main(["report", str(run)]) == 0
    content = (run / "report.html").read_text("utf-8")
    assert "<script" not in content and "\u202e" not in content and "\x1b" not in content
    page = Checked(content)
    assert "GLEU of 32 answers (0 to 1): 0.25 before, 0.5 after" in page.text
    assert "3,000 characters more" in page.text and "<script>x</script>" in page.text
    assert len(content) < 50_000


def test_pictures_beside_the_page(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [3.0, 2.0]) for name in ("one<&", "二")]
    out = tmp_path / "both.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    root = ElementTree.parse(tmp_path / "both.svg").getroot()
    lines = root.findall(".//{*}polyline")
    assert len(lines) == 2 * 2 * (3 + 2)
    assert "one<&" in "".join(root.itertext()) and "二" in "".join(root.itertext())
    with Image.open(tmp_path / "both.png") as image:
        image.load()
        assert image.width == 2 * int(root.attrib["width"])
        colours = {colour for _, colour in image.convert("RGB").getcolors() or []}
    assert len(colours) > 4


def test_a_page_that_cannot_be_written_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [1.0])
    (run / "report.html").mkdir()
    run_page.report_finished_run(run)
    run_page.report_finished_run(tmp_path / "gone")
    out = capsys.readouterr().out
    assert out.count("--> no report.html: ") == 2 and f"report {run}" in out
