"""Both files from JFLEG and C4_200M: the guide's bytes, the published bytes, what is refused."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from llama_recipes_local.commands.prepare.grammar.build import build_grammar
from llama_recipes_local.commands.prepare.grammar.command import PUBLISHED_FOLDER
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.storage import data_root

Rows = list[tuple[str, list[str]]]
Pairs = list[tuple[str, str]]

TRAINING = "gtrain_10k.csv"
VALIDATION = "grammar_validation.csv"

# as the recipe of the published files has them, with a bar between the two sides
LISTED = (
    " .|.", " ,|,", " '|'", " ?|?", " !|!", " :|:", " ;|;", " n't|n't", " v|v", "2 0 0 6|2006",
    "5 5|55", "4 0 0|400", "1 7-5 0|1750", "2 0 %|20%", "5 0|50", "1 2|12", "1 0|10",
    '" ballast water|"ballast water',
)  # fmt: skip

JFLEG: dict[str, Rows] = {
    "validation": [
        (
            'It is n\'t very " new " , in 2 0 0 6 . ',
            ["It is n't .", "a ; b : c", "5 0 or 5 5", "1 0"],
        ),
        ("They 've ? ", ["One", "", " ", "x ! "]),
        ("", ["", "", "", ""]),
    ],
    "test": [("All the people .", ["a , b", "c", "d", "1 7-5 0 to 4 0 0"]), ("", ["", "", "", ""])],
}
C4: Pairs = [
    ("He go 1 2 2 0 %", "He goes 1 2 20 %"),
    ('" ballast water', 'he said , " so "'),
    ("", "blank"),
    ("blank", ""),
    ("three very big", "three"),
    ("same", "same"),
    ("same", "same"),
    ("not asked for", "not asked for"),
]


def write_jfleg(folder: Path, rows: dict[str, Rows] = JFLEG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, sentences in rows.items():
        lines = [json.dumps({"sentence": a, "corrections": refs}) for a, refs in sentences]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def write_c4(folder: Path, pairs: Iterable[tuple[str, str]] = C4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "C4_200M.tsv-00000-of-00010").open("w", encoding="utf-8") as file:
        file.writelines(f"{first}\t{second}\n" for first, second in pairs)
    return folder


def corrected(text: str) -> str:
    for listed in LISTED:
        text = text.replace(*listed.split("|"))
    return text


def guide(folder: Path, jfleg: dict[str, Rows], c4: Pairs, num_c4: int) -> tuple[bytes, bytes]:
    """The training and the validation file by the steps of the guide's script, with pandas."""
    import pandas as pd

    def table(pairs: Iterable[tuple[str, str]]) -> "pd.DataFrame":
        between = folder / "between.csv"
        with between.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["input", "target"])
            for pair in pairs:
                first, second = map(corrected, pair)
                if first and second:
                    writer.writerow([first, second])
        return pd.read_csv(between)

    def published(frame: "pd.DataFrame") -> bytes:
        frame.to_csv(folder / "out.csv", index=False, encoding="utf-8-sig")
        return (folder / "out.csv").read_bytes()

    train, test = (
        table((sentence, text) for sentence, texts in jfleg[split] for text in texts)
        for split in ("validation", "test")
    )
    return published(pd.concat([train, table(c4[:num_c4])])), published(test)


def test_the_guides_script_gives_the_same_bytes(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4")
    out = tmp_path / "deep/er/grammar"
    build_grammar(out, jfleg, c4, 7)
    training, validation = guide(tmp_path, JFLEG, C4, 7)
    assert (out / TRAINING).read_bytes() == training
    assert (out / VALIDATION).read_bytes() == validation
    assert sorted(path.name for path in out.iterdir()) == [VALIDATION, TRAINING]


def test_the_bytes_equal_those_computed_by_hand(tmp_path: Path) -> None:
    write_jfleg(tmp_path / "jfleg")
    build_grammar(tmp_path / "out", tmp_path / "jfleg", write_c4(tmp_path / "c4"), 7)
    first = '"It isn\'tvery "" new "", in 2006. "'
    assert (tmp_path / "out" / TRAINING).read_text("utf-8").splitlines() == [
        "\ufeffinput,target",
        f"{first},It isn't.",
        f"{first},a; b: c",
        f"{first},50 or 55",
        f"{first},10",
        "They've? ,One",
        "They've? , ",
        "They've? ,x! ",
        "He go 12 20%,He goes 12 20 %",
        '"""ballast water","he said, "" so """',
        "threevery big,three",
        "same,same",
        "same,same",
    ]
    assert (tmp_path / "out" / VALIDATION).read_bytes() == (
        b'\xef\xbb\xbfinput,target\nAll the people.,"a, b"\nAll the people.,c\n'
        b"All the people.,d\nAll the people.,1750 to 400\n"
    )


def test_the_summary_names_files_rows_and_blank_pairs(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4")
    (c4 / "C4_200M.tsv-00001-of-00010").write_text("never opened")
    summary = build_grammar(tmp_path / "out", jfleg, c4, 7)
    training, validation = summary.training, summary.validation
    assert training.path == tmp_path / "out" / TRAINING
    assert validation.path == tmp_path / "out" / VALIDATION
    assert training.rows == {"JFLEG": 7, "C4_200M": 5}
    assert validation.rows == {"JFLEG": 4}
    assert (training.blank, validation.blank) == (7, 4)
    assert training.read == [
        str(jfleg / "validation.jsonl"),
        str(c4 / "C4_200M.tsv-00000-of-00010"),
    ]
    assert validation.read == [str(jfleg / "test.jsonl")]
    lines = str(summary).splitlines()
    assert lines[0] == (
        f"{training.path}: 12 rows (7 from JFLEG, 5 from C4_200M), 7 blank pairs skipped"
    )
    assert lines[1] == f"   read {jfleg / 'validation.jsonl'}"
    assert lines[-1] == "spacing published: 18 corrections"


def published_rows(name: str) -> list[list[str]]:
    content = (PUBLISHED_FOLDER / name).read_text("utf-8-sig")
    return list(csv.reader(io.StringIO(content, newline="")))[1:]


def tokenised(text: str) -> str:
    """A text, spaced as JFLEG is, that the corrections turn into this one."""
    spaced = re.sub(r"( v|[.,'?!:;])", r" \1", text).replace("2006", "2 0 0 6")
    assert corrected(spaced) == text
    return spaced


@pytest.mark.slow
def test_the_published_files_are_reproduced_from_their_sources(tmp_path: Path) -> None:
    """JFLEG and C4_200M as they must have been; the blank last sentence is the Hub's."""

    def sentences(rows: list[list[str]]) -> Rows:
        fours = [rows[i : i + 4] for i in range(0, len(rows), 4)]
        assert all(len({row[0] for row in four}) == 1 for four in fours)
        made = [(tokenised(four[0][0]), [tokenised(row[1]) for row in four]) for four in fours]
        return [*made, ("", [""] * 4)]

    training = published_rows(TRAINING)
    rows = {
        "validation": sentences(training[:3016]),
        "test": sentences(published_rows(VALIDATION)),
    }
    assert (len(rows["validation"]), len(rows["test"])) == (755, 748)  # as on the Hub
    jfleg = write_jfleg(tmp_path / "jfleg", rows)
    c4 = write_c4(
        tmp_path / "c4",
        [*((tokenised(a), tokenised(b)) for a, b in training[3016:]), ("one", "more")],
    )
    summary = build_grammar(tmp_path / "out", jfleg, c4)
    for name in (TRAINING, VALIDATION):
        assert (tmp_path / "out" / name).read_bytes() == (PUBLISHED_FOLDER / name).read_bytes()
    assert summary.training.rows == {"JFLEG": 3016, "C4_200M": 10_000}
    assert summary.training.blank == summary.validation.blank == 4


def test_jfleg_alone(tmp_path: Path) -> None:
    summary = build_grammar(tmp_path / "out", write_jfleg(tmp_path / "jfleg"), None)
    training, validation = guide(tmp_path, JFLEG, [("a", "b")], 1)
    assert (tmp_path / "out" / TRAINING).read_bytes() == training.removesuffix(b"a,b\n")
    assert (tmp_path / "out" / VALIDATION).read_bytes() == validation
    assert summary.training.rows == {"JFLEG": 7}


def test_clean_spacing(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4")
    summary = build_grammar(tmp_path / "out", jfleg, c4, 1, "clean")
    text = (tmp_path / "out" / TRAINING).read_text("utf-8")
    assert "It isn't very" in text and "in 2 0 0 6. " in text
    assert "He go 1 2 2 0 %,He goes 1 2 20 %\n" in text
    assert str(summary).endswith("spacing clean: 9 corrections")


def test_a_link_to_a_file_of_c4_200m_is_read_by_its_name(tmp_path: Path) -> None:
    write_c4(tmp_path / "c4").joinpath("C4_200M.tsv-00000-of-00010").rename(tmp_path / "0123")
    (tmp_path / "c4.tsv").symlink_to(tmp_path / "0123")
    jfleg = write_jfleg(tmp_path / "jfleg")
    summary = build_grammar(tmp_path / "out", jfleg, tmp_path / "c4.tsv", 7)
    assert summary.training.rows["C4_200M"] == 5


def test_relative_paths_are_below_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jfleg(tmp_path / "jfleg")
    monkeypatch.setenv(data_root.ENVIRONMENT_VARIABLE, str(tmp_path))
    summary = build_grammar(Path("grammar"), Path("jfleg"), None)
    assert summary.training.path == tmp_path / "grammar" / TRAINING


@pytest.mark.slow
def test_memory_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    jfleg = write_jfleg(tmp_path / "jfleg")
    c4 = write_c4(tmp_path / "c4", ((f"{i} " + "word " * 60, "word " * 60) for i in range(15_000)))
    tracemalloc.start()
    try:
        build_grammar(tmp_path / "out", jfleg, c4, 15_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / TRAINING).stat().st_size > 9_000_000
    assert peak < 1_000_000


def refused(out: Path, jfleg: Path | None, c4: Path | None, *options: object) -> list[Problem]:
    before = {path: path.read_bytes() for path in out.rglob("*")} if out.is_dir() else {}
    with pytest.raises(UsageError) as caught:
        build_grammar(out, jfleg, c4, *options)  # type: ignore[arg-type]
    after = {path: path.read_bytes() for path in out.rglob("*")} if out.is_dir() else {}
    assert after == before  # nothing is written
    return caught.value.problems


def test_c4_200m_alone_is_refused_because_there_is_no_validation_file(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path / "out", None, write_c4(tmp_path / "c4"))
    assert problem.what == "only --c4_200m is given"
    assert "the validation file is built from JFLEG's test split" in problem.why
    assert problem.fix == "--jfleg DIR"


def test_no_source_is_refused(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path / "out", None, None)
    assert problem.what == "neither --jfleg nor --c4_200m is given"


def test_all_problems_of_the_arguments_are_reported_together(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / TRAINING).write_text("mine")
    jfleg = write_jfleg(tmp_path / "jfleg")
    (jfleg / "test.jsonl").unlink()
    problems = refused(out, jfleg, tmp_path / "c4", 0, "tidy")
    assert [problem.what for problem in problems] == [
        f"{out / TRAINING} exists",
        "--spacing tidy",
        f"{jfleg} does not contain the test split of JFLEG",
        "--num_c4 0",
        f"{tmp_path / 'c4'} does not exist",
    ]
    assert "--overwrite" in problems[0].fix
    assert problems[1].fix == "--spacing published or --spacing clean"
    assert "it holds validation.jsonl" in problems[2].why


def test_all_parts_that_cannot_be_read_are_reported_together(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4")
    (jfleg / "validation.jsonl").write_text('{"sentence": "a", "corrections": ["b"]}\n{')
    (jfleg / "test.jsonl").write_text("")
    part = c4 / "C4_200M.tsv-00000-of-00010"
    part.write_text("a\tb\nc\td\ne\n")
    problems = refused(tmp_path / "out", jfleg, c4, 5)
    assert [problem.what for problem in problems] == [
        f"line 2 of {jfleg / 'validation.jsonl'} is not JSON",
        f"line 3 of {part} has 1 column",
        f"JFLEG has no row for {VALIDATION}",
    ]
    assert problems[1].fix == "use the 2 examples before it: --num_c4 2"
    assert problems[2].why == "its files have no rows"


def test_a_bad_first_example_has_no_fix(tmp_path: Path) -> None:
    c4 = write_c4(tmp_path / "c4")
    (c4 / "C4_200M.tsv-00000-of-00010").write_text("a\n")
    (problem,) = refused(tmp_path / "out", write_jfleg(tmp_path / "jfleg"), c4)
    assert problem.fix == ""


def test_fewer_examples_than_requested_are_refused(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4")
    part = c4 / "C4_200M.tsv-00000-of-00010"
    (problem,) = refused(tmp_path / "out", jfleg, c4)
    assert problem.what == f"{part} has {len(C4)} examples"
    assert problem.why == "--num_c4 asks for 10000"
    assert problem.fix == f"--num_c4 {len(C4)}"
    part.write_text("")
    (problem,) = refused(tmp_path / "out", jfleg, c4)
    assert problem.fix == "leave out --c4_200m"


def test_examples_continue_in_the_next_file(tmp_path: Path) -> None:
    jfleg, c4 = write_jfleg(tmp_path / "jfleg"), write_c4(tmp_path / "c4", C4[:4])
    (c4 / "C4_200M.tsv-00001-of-00010").write_text("".join(f"{a}\t{b}\n" for a, b in C4[4:]))
    summary = build_grammar(tmp_path / "out", jfleg, c4, 7)
    assert (tmp_path / "out" / TRAINING).read_bytes() == guide(tmp_path, JFLEG, C4, 7)[0]
    assert len(summary.training.read) == 3


def test_a_split_of_blank_pairs_is_refused(tmp_path: Path) -> None:
    jfleg = write_jfleg(tmp_path / "jfleg", JFLEG | {"validation": [("", ["a", "b"])]})
    (problem,) = refused(tmp_path / "out", jfleg, None)
    assert problem.what == f"JFLEG has no row for {TRAINING}"
    assert problem.why == "all of its 2 pairs are blank"


@pytest.mark.parametrize("name", [TRAINING, VALIDATION])
def test_existing_files_are_only_overwritten_with_the_flag(name: str, tmp_path: Path) -> None:
    out, jfleg = tmp_path / "out", write_jfleg(tmp_path / "jfleg")
    out.mkdir()
    (out / name).write_text("mine")
    (problem,) = refused(out, jfleg, None)
    assert problem.what == f"{out / name} exists"
    build_grammar(out, jfleg, None, overwrite=True)
    assert (out / name).read_bytes().startswith(b"\xef\xbb\xbfinput,target\n")


def test_a_failed_build_keeps_the_existing_files(tmp_path: Path) -> None:
    out, jfleg = tmp_path / "out", write_jfleg(tmp_path / "jfleg")
    build_grammar(out, jfleg, None)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (jfleg / "test.jsonl").write_text("{")
    with pytest.raises(UsageError):
        build_grammar(out, jfleg, None, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("below", ["", "grammar"])
def test_a_file_as_the_output_folder_is_refused(below: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    (problem,) = refused(tmp_path / "out" / below, write_jfleg(tmp_path / "jfleg"), None)
    assert problem.what == f"{tmp_path / 'out'} is a file"
    assert (tmp_path / "out").read_text() == "mine"
