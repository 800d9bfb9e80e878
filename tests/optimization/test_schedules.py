"""Each schedule's rates are its closed form's, in the order in which steps are taken."""

import math
from typing import Any

import pytest
import torch

from llama_recipes_local import configs
from llama_recipes_local.optimization import StepLR
from llama_recipes_local.optimization.schedules import factor_by_step, make_schedule

TOTAL, PER_EPOCH = 20, 5


def factors(**fields: Any) -> list[float]:
    factor = factor_by_step(configs.train_config(**fields), TOTAL, PER_EPOCH)
    return [factor(step) for step in range(TOTAL)]


def test_constant_stays() -> None:
    assert factors(scheduler="constant") == [1.0] * TOTAL


def test_linear_falls_by_equal_parts_and_takes_no_step_at_nothing() -> None:
    assert factors(scheduler="linear") == pytest.approx([1 - s / 20 for s in range(20)])
    assert min(factors(scheduler="linear")) == pytest.approx(1 / 20)


def test_cosine_is_half_a_wave() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * s / 20)) / 2 for s in range(20)]
    assert factors(scheduler="cosine", min_lr_ratio=0.1) == pytest.approx(expected)


def test_wsd_stays_and_decays_in_its_last_part() -> None:
    got = factors(scheduler="wsd", wsd_decay_ratio=0.25, min_lr_ratio=0.5, warmup_steps=4)
    assert got[:4] == [0.25, 0.5, 0.75, 1.0]
    assert got[4:16] == [1.0] * 12
    assert got[14:] == pytest.approx([1.0, 1.0, 0.9, 0.8, 0.7, 0.6])
    # a last part that would begin before the warm-up ends begins there
    whole = factors(scheduler="wsd", wsd_decay_ratio=1.0, warmup_steps=4)
    assert whole == factors(scheduler="linear", warmup_steps=4)


def test_step_falls_once_an_epoch_after_warming_up() -> None:
    got = factors(scheduler="step", gamma=0.5, warmup_steps=2)
    assert got == [0.5, 1.0, *[1.0] * 3, *[0.5] * 5, *[0.25] * 5, *[0.125] * 5]


@pytest.mark.parametrize("scheduler", ["constant", "linear", "cosine", "wsd"])
def test_warm_up_is_linear_and_decay_starts_where_it_ends(scheduler: str) -> None:
    got = factors(scheduler=scheduler, warmup_steps=5)
    assert got[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    if scheduler == "linear":
        assert got[5:] == pytest.approx([1 - s / 15 for s in range(15)])


def test_a_run_shorter_than_its_warm_up_is_all_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert factors(scheduler="cosine", warmup_steps=40)[-1] == 0.5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    for warmup, said in ((19, ""), (40, "--> --warmup_steps 40 is not less than the run's 20")):
        config = configs.train_config(scheduler="cosine", warmup_steps=warmup)
        make_schedule(StepLR(optimizer, step_size=1), optimizer, config, TOTAL, PER_EPOCH)
        assert capsys.readouterr().out[: len(said) or None] == said


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "wsd"])
def test_nothing_falls_below_the_lowest_rate(scheduler: str) -> None:
    factor = factor_by_step(
        configs.train_config(scheduler=scheduler, min_lr_ratio=0.2), TOTAL, PER_EPOCH
    )
    assert factor(TOTAL) == factor(10 * TOTAL) == pytest.approx(0.2)


def test_every_group_follows_from_its_own_rate() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 0.4}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    given = StepLR(optimizer, step_size=1, gamma=0.5)
    config = configs.train_config(scheduler="linear")
    schedule = make_schedule(given, optimizer, config, total_steps=4, steps_per_epoch=2)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.after_step()
        schedule.after_epoch()
    assert rates == [
        pytest.approx([factor * 0.1, factor * 0.4]) for factor in (1.0, 0.75, 0.5, 0.25)
    ]


def test_a_scheduler_of_ones_own_is_stepped_once_an_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    own = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    assert make_schedule(own, optimizer, configs.train_config(), 4, 2).scheduler is own


def test_the_decaying_part_of_wsd_is_rounded_to_whole_steps() -> None:
    assert factors(scheduler="wsd", wsd_decay_ratio=0.09)[17:] == pytest.approx([1.0, 1.0, 0.5])


@pytest.mark.parametrize("scheduler", ["step", "constant", "linear", "cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_resumed_schedule_goes_through_the_rates_of_a_straight_one(
    scheduler: str, warmup: int
) -> None:
    config = configs.train_config(scheduler=scheduler, warmup_steps=warmup, gamma=0.5)

    def rates(resumed_at: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        given = StepLR(optimizer, step_size=1, gamma=0.5)
        schedule = make_schedule(given, optimizer, config, TOTAL, PER_EPOCH)
        if resumed_at:
            factor = factor_by_step(config, TOTAL, PER_EPOCH)
            schedule.follow(resumed_at, resumed_at // PER_EPOCH, factor)
        found = []
        for step in range(resumed_at, TOTAL):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
            if (step + 1) % PER_EPOCH == 0:
                schedule.after_epoch()
        return found

    straight = rates(0)
    assert len(set(straight)) > 1 or (scheduler, warmup) == ("constant", 0)
    for step in (1, 7, 10):
        assert rates(step) == pytest.approx(straight[step:], rel=1e-12)
