"""Which of torchrun's variables make a process a rank, and which are refused."""

import pytest

from llama_recipes_local import launch

COMPLETE = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def set_to(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_complete_set_makes_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, COMPLETE)
    assert launch.find_problems() == []
    assert launch.launch() == launch.Launch(1, 1, 2, "127.0.0.1", 29500)
    assert (launch.rank(), launch.world_size()) == (1, 2)


def test_a_rank_alone_may_meet_at_any_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(
        monkeypatch,
        COMPLETE | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "0"},
    )
    assert launch.find_problems() == []
    assert launch.launch() == launch.Launch(0, 0, 1, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "variables", [{}, {"MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}, {"RANK": ""}]
)
def test_a_process_alone_is_no_rank(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, variables)
    assert launch.find_problems() == []
    assert launch.launch() is None
    assert (launch.rank(), launch.world_size()) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"RANK": "1"}, "not set: LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, "not set: LOCAL_RANK"),
        ({"WORLD_SIZE": "4"}, "not set: RANK"),
        ({"LOCAL_RANK": "0"}, "not set: RANK"),
        (COMPLETE | {"LOCAL_RANK": ""}, "not set: LOCAL_RANK"),
        (COMPLETE | {"RANK": "x"}, "RANK is not a number"),
        (COMPLETE | {"RANK": "-1"}, "RANK is not a number"),
        (COMPLETE | {"WORLD_SIZE": "2.0"}, "WORLD_SIZE is not a number"),
        (COMPLETE | {"RANK": "2"}, "RANK must be below WORLD_SIZE"),
        (COMPLETE | {"MASTER_PORT": "0"}, "MASTER_PORT must be from 1"),
        (COMPLETE | {"MASTER_PORT": "99999"}, "MASTER_PORT must be"),
    ],
)
def test_a_part_of_a_set_is_refused_and_makes_no_rank(
    variables: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, variables)
    (problem,) = launch.find_problems()
    assert why in problem.why
    assert "unset " in problem.fix
    assert (launch.rank(), launch.world_size()) == (0, 1)
