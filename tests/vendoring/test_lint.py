"""``check`` finds each thing that can be wrong with the series and its patches."""

from collections.abc import Callable

import pytest

from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.header import template
from llama_recipes_local.vendoring.lint import check
from llama_recipes_local.vendoring.making import make

AddPatch = Callable[..., bytes]

NAME = "0001-wandb.patch"
WANDB = "llama_recipes/configs/wandb.py"
SAMPLER = "llama_recipes/data/sampler.py"


def test_a_good_series(checkout: Checkout, add_patch: AddPatch, no_pip: None) -> None:
    add_patch()
    report = check(checkout)
    assert report.problems == []
    assert report.lines[0] == "patches: 1; 1 lines added, 1 removed, 2 of at most 59"


def test_no_patches(checkout: Checkout) -> None:
    checkout.series.unlink()
    report = check(checkout)
    assert report.problems == []
    assert report.lines[0] == "patches: 0; 0 lines added, 0 removed, 0 of at most 59"


@pytest.mark.parametrize(
    ("series", "problem"),
    [
        (b"", f"{NAME} is not listed in the series"),
        (f"# {NAME}\n".encode(), f"{NAME} is not listed in the series"),
        (f"{NAME}\n\n{NAME}\n".encode(), f"the series lists {NAME} 2 times"),
        (
            f"{NAME}\n0002-none.patch\n".encode(),
            "the series lists 0002-none.patch, which is missing",
        ),
        (
            f"{NAME}\nupstream.txt\n".encode(),
            "the series lists 'upstream.txt', which is not a name NAME.patch",
        ),
    ],
)
def test_a_wrong_series(
    series: bytes, problem: str, checkout: Checkout, add_patch: AddPatch
) -> None:
    add_patch()
    checkout.series.write_bytes(series)
    assert check(checkout).problems == [problem]


def test_a_wrong_lock(checkout: Checkout) -> None:
    checkout.lock.write_text("llama-recipes\n")
    (problem,) = check(checkout).problems
    assert "must hold one requirement" in problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        *(
            (field, b"X-" + field, f"the header has no {field.decode()}")
            for field in (
                b"Description",
                b"Author",
                b"Forwarded",
                b"Last-Update",
                b"Seam",
                b"Test",
                b"Drop-When",
            )
        ),
        (b"Author: A Developer", b"Author: ", "the header has no Author"),
        (b"A Developer", b"<name>", "the header's Author is still the template's: <name>"),
        (b"not-needed", b"no", "Forwarded must be not-needed, not 'no'"),
        (b"2026-01-31", b"2026-02-31", "Last-Update must be a date YYYY-MM-DD, not '2026-02-31'"),
        (b"2026-01-31", b"20260131", "Last-Update must be a date YYYY-MM-DD, not '20260131'"),
        (b"Author:", b"Author: B\nAuthor:", "the header has Author twice"),
        (b"Author:", b"words\nAuthor:", "the header's line 'words' is not a field 'Name: text'"),
        (b"::test_seam", b"::test_sea", "Test names test_sea, which CHECKOUT does not define"),
        (b"::test_seam", b"::Test::test_seam", "Test names Test, which CHECKOUT does not define"),
        (b"test_seam.py::", b"test_sean.py::", "Test names CHECKOUT, which does not exist"),
    ],
)
def test_a_wrong_header(
    old: bytes, new: bytes, problem: str, checkout: Checkout, add_patch: AddPatch
) -> None:
    content = add_patch()
    header, labels, diff = content.partition(b"--- a/")
    assert old in header
    (checkout.patches / NAME).write_bytes(header.replace(old, new, 1) + labels + diff)
    test = checkout.root / "tests" / "test_seam.py"
    if b"test_sean" in new:
        test = test.with_name("test_sean.py")
    assert check(checkout).problems == [f"{NAME}: {problem.replace('CHECKOUT', str(test))}"]


@pytest.mark.parametrize(
    "test",
    [b"tests/test_seam.py", b"tests/test_seam.py::test_seam", b"tests/test_seam.py::test_seam[1]"],
)
def test_a_test_that_exists(test: bytes, checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    content = content.replace(b"tests/test_seam.py::test_seam", test)
    (checkout.patches / NAME).write_bytes(content)
    assert check(checkout).problems == []


def test_a_field_may_continue_on_the_next_line(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    content = content.replace(b"one of ours; ", b"one of ours;\n ")
    (checkout.patches / NAME).write_bytes(content)
    assert check(checkout).problems == []


def test_the_template_must_be_filled_in(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch(header=template())
    problems = check(checkout).problems
    assert len(problems) == 5
    assert all("still the template's" in problem for problem in problems)


def test_a_malformed_patch(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    (checkout.patches / NAME).write_bytes(content.replace(b"@@ -6,7", b"@@ -6,8"))
    (problem,) = check(checkout).problems
    assert problem.startswith(NAME) and "lines" in problem


def test_two_patches_of_one_file(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    add_patch("0002-wandb.patch", old=b"notes", new=b"note")
    (problem,) = check(checkout).problems
    assert problem.startswith(f"0002-wandb.patch: {WANDB} is also changed by {NAME}")


@pytest.mark.parametrize(("lines", "problems"), [(57, 0), (58, 1)])
def test_the_series_stays_small(
    lines: int, problems: int, checkout: Checkout, add_patch: AddPatch
) -> None:
    # One line is removed and one put in its place: 59 lines are allowed, 60 are not.
    more = b"".join(b"import m%d\n" % number for number in range(lines))
    add_patch(path=SAMPLER, old=b"import random\n", new=more + b"import random # 1\n")
    report = check(checkout)
    assert report.lines[0].endswith(f"{lines + 2} of at most 59")
    assert len(report.problems) == problems
    assert all("move logic" in problem for problem in report.problems)


def test_all_problems_are_reported_at_once(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    (checkout.patches / NAME).write_bytes(content.replace(b"not-needed", b"no"))
    (checkout.patches / "0002-cut.patch").write_bytes(content[:-1])
    assert len(check(checkout, apply=True).problems) == 3
    (checkout.patches / "0002-cut.patch").unlink()
    patch = checkout.patches / NAME
    patch.write_bytes(patch.read_bytes().replace(b" @dataclass", b" @data"))
    first, second = check(checkout, apply=True).problems
    assert "Forwarded" in first
    assert "does not apply" in second


@pytest.mark.parametrize("apply", [False, True])
def test_a_patch_that_cannot_be_read_is_reported_once(
    apply: bool, checkout: Checkout, add_patch: AddPatch
) -> None:
    content = add_patch()
    (checkout.patches / NAME).write_bytes(content[:-1])
    (problem,) = check(checkout, apply).problems
    assert "cut short" in problem


def test_freshness_is_reported(checkout: Checkout, add_patch: AddPatch) -> None:
    assert check(checkout).lines[-1] == "  there is no copy yet"
    make(checkout)
    assert check(checkout).lines[-1] == "the copy is fresh"
    add_patch()
    report = check(checkout)
    assert report.lines[-1] == f"  patch {NAME} added"
    assert report.problems == []


def test_applied(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    assert check(checkout, apply=True).problems == []
    assert not checkout.vendor.exists()
    make(checkout)
    report = check(checkout, apply=True)
    assert report.problems == []
    assert "the series applies to the locked wheel" in report.lines


def test_a_patch_that_does_not_apply(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch()
    (checkout.patches / NAME).write_bytes(content.replace(b" @dataclass", b" @data"))
    assert check(checkout).problems == []
    (problem,) = check(checkout, apply=True).problems
    assert problem.startswith(f"{NAME} does not apply")


@pytest.mark.parametrize("seam", ["configs.gone", "configs.wandb.gone", "gone.module.function"])
def test_a_seam_that_upstream_does_not_have(
    seam: str, checkout: Checkout, add_patch: AddPatch
) -> None:
    content = add_patch().replace(b"Seam: configs.wandb", f"Seam: {seam}".encode())
    (checkout.patches / NAME).write_bytes(content)
    (problem,) = check(checkout, apply=True).problems
    assert problem == f"{NAME}: Seam names {seam}, which the copy does not have"


def test_a_seam_may_be_a_class(checkout: Checkout, add_patch: AddPatch) -> None:
    content = add_patch().replace(b"Seam: configs.wandb", b"Seam: configs.wandb.wandb_config")
    (checkout.patches / NAME).write_bytes(content)
    assert check(checkout, apply=True).problems == []


def test_a_copy_that_is_not_what_the_series_makes(checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    make(checkout)
    (checkout.vendor / SAMPLER).write_bytes(b"")
    (checkout.vendor / "more.py").write_bytes(b"")
    problems = check(checkout, apply=True).problems
    assert [problem.split(" is not")[0] for problem in problems] == [
        str(checkout.vendor / SAMPLER),
        str(checkout.vendor / "more.py"),
    ]


def test_application_fetches_the_wheel_only_when_asked(
    bare_checkout: Checkout, no_pip: None
) -> None:
    assert check(bare_checkout).problems == []
    with pytest.raises(AssertionError, match="was fetched"):
        check(bare_checkout, apply=True)
