"""The page in headless Chromium: it fits a phone and a desk in both themes, and can be read."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.reports.run_files import read_runs
from llama_recipes_local.reports.run_page import as_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.command,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
WIDTHS = (375, 1440)
THEMES = {"dark": 0, "light": 1}
# frames are as wide as they are told to be, which a window is not
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe src="page.html" width="375" height="800"></iframe>
<iframe src="page.html" width="1440" height="800"></iframe>
<pre></pre><script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = frame.contentWindow;
    const style = (name, what) => view.getComputedStyle(page.querySelector(name))[what];
    return {
      mode: page.compatMode,
      room: page.documentElement.clientWidth,
      width: page.documentElement.scrollWidth,
      back: style("body", "backgroundColor"),
      texts: [style("body", "color"), style("p.note", "color"), style("svg text", "fill"),
        style("a", "color"), style("polyline", "stroke")],
      outside: [...page.querySelectorAll("svg.chart text")].filter(text => {
        const own = text.getBoundingClientRect();
        const box = text.ownerSVGElement.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 1;
      }).map(text => text.textContent),
      reached: [...page.querySelectorAll("a[href], summary, [tabindex]")].map(e => e.tagName),
      unnamed: [...page.querySelectorAll("svg[role], [role=region], nav, article")]
        .filter(e => !e.getAttribute("aria-label")).length,
      headless: [...page.querySelectorAll("table")].filter(
        table => !table.caption || !table.querySelector("th[scope=row]")).length,
    };
  });
  document.querySelector("pre").textContent = JSON.stringify(found);
};
</script></body>"""


def make_run(folder: Path) -> Path:
    folder.mkdir()
    steps = [
        {"step": n, "loss": 3 - n / 99, "lr": n * 1e-6, "tokens": 512, "tokens_per_second": 1e5 + n}
        for n in range(1, 99)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (folder / "evaluations.jsonl").write_text('{"step": 9, "loss": 1}\n{"step": 99, "loss": 0.5}\n')
    record = {"train_config": {"model_name": "/models/" + "long" * 200, "lr": 1}, "finished": "now"}
    (folder / "run_config.json").write_text(json.dumps(record))
    text = "a" * 900 + " \u0645\u0631\u062d\u0628\u0627 <b>" + "words and words " * 30
    answer = dict.fromkeys(("prompt", "before", "after", "reference"), text)
    (folder / "sample_answers.json").write_text(json.dumps({"answers": [answer] * 3}))
    part = {"rows": 123456789, "tokens": 10**12, "counts": {"records": 123456789}}
    (folder / "data_audit.json").write_text(json.dumps({"train": part, "validation": part}))
    return folder


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Return what the browser says of the page, by the theme and then the width."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [make_run(folder / name) for name in ("one", "another-" + "name" * 40)]
    (folder / "page.html").write_text(as_page(read_runs(runs)), "utf-8")
    (folder / "frames.html").write_text(FRAMES)
    return {name: _look(folder, theme) for name, theme in THEMES.items()}


def _look(folder: Path, theme: int) -> list[dict[str, Any]]:
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += [f"--user-data-dir={folder / 'profile'}"]
    flags += [f"--blink-settings=preferredColorScheme={theme}", "--dump-dom"]
    command = [CHROMIUM, *flags, f"file://{folder / 'frames.html'}"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HOME": str(folder)},
    )
    found: list[dict[str, Any]] = json.loads(
        unescape(re.findall("<pre>(.*?)</pre>", done.stdout, re.DOTALL)[0])
    )
    return found


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_nothing_is_wider_than_the_window(seen: dict[str, list[dict[str, Any]]]) -> None:
    for frames in seen.values():
        assert len(frames) == len(WIDTHS)
        for frame in frames:
            assert frame["mode"] == "CSS1Compat"
            assert frame["width"] <= frame["room"], frame
            assert frame["outside"] == []


def test_texts_can_be_read_in_both_themes(seen: dict[str, list[dict[str, Any]]]) -> None:
    assert luminance(seen["dark"][0]["back"]) < 0.05 < 0.9 < luminance(seen["light"][0]["back"])
    for frames in seen.values():
        for frame in frames:
            assert all(contrast(text, frame["back"]) >= 4.5 for text in frame["texts"]), frame


def test_what_a_keyboard_and_a_screen_reader_meet(seen: dict[str, list[dict[str, Any]]]) -> None:
    frame = seen["light"][0]
    assert frame["reached"][0] == "A"  # the link that skips the others
    assert "SUMMARY" in frame["reached"] and "DIV" in frame["reached"]
    assert frame["unnamed"] == 0 and frame["headless"] == 0
