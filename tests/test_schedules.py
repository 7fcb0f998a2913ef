"""Properties of the cyclical schedule."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgmcmc_prune.chains.schedules import Cyclical, Plan

exact = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SCHEDULE = Cyclical(
    lr=0.4, lr_explore=0.2, lr_min=0.1, momentum=0.9, temperature=0.5, burn_in=7, cycles=3, explore=5, sample=8, relax=2
)


@st.composite
def schedules(draw: st.DrawFn, min_cycles: int = 1) -> Cyclical:
    """Any valid schedule of a few hundred steps."""
    lr_min, lr_explore, lr = sorted(draw(st.lists(st.floats(1e-6, 10.0), min_size=3, max_size=3)))
    relax, thin = draw(st.integers(0, 5)), draw(st.integers(1, 4))
    return Cyclical(
        lr=lr,
        lr_explore=lr_explore,
        lr_min=lr_min,
        momentum=draw(st.floats(0.0, 0.999)),
        temperature=draw(st.floats(0.0, 2.0)),
        burn_in=draw(st.integers(0, 20)),
        cycles=draw(st.integers(min_cycles, 4)),
        explore=draw(st.integers(0, 15)),
        sample=relax + thin + draw(st.integers(0, 15)),
        relax=relax,
        thin=thin,
    )


def plans(schedule: Cyclical) -> list[Plan]:
    return [schedule(t) for t in range(schedule.num_steps)]


@exact
@given(schedule=schedules(), data=st.data())
def test_a_plan_is_a_pure_function_of_the_step(schedule: Cyclical, data: st.DataObject) -> None:
    forwards = plans(schedule)
    order = data.draw(st.permutations(range(schedule.num_steps)))
    other = replace(schedule)
    assert all(other(t) == forwards[t] for t in order)


@exact
@given(schedule=schedules(min_cycles=0))
def test_the_step_stays_between_its_ends(schedule: Cyclical) -> None:
    for plan in plans(schedule):
        top = schedule.lr_explore if plan.phase == "explore" else schedule.lr
        assert schedule.lr_min <= plan.lr <= top * (1 + 1e-15)


@exact
@given(schedule=schedules(min_cycles=0))
def test_each_phase_has_its_length(schedule: Cyclical) -> None:
    phases = [(p.cycle, p.phase) for p in plans(schedule)]
    expected = [(0, "burn_in")] * schedule.burn_in
    for cycle in range(1, schedule.cycles + 1):
        expected += [(cycle, "explore")] * schedule.explore + [(cycle, "sample")] * schedule.sample
    assert phases == expected


@exact
@given(schedule=schedules())
def test_sampling_has_one_kernel(schedule: Cyclical) -> None:
    kernels = {(p.lr, p.momentum, p.temperature) for p in plans(schedule) if p.phase == "sample"}
    assert len(kernels) == 1
    assert kernels.pop()[0] == schedule.lr_min


@exact
@given(schedule=schedules(min_cycles=0))
def test_draws_are_counted_and_come_from_sampling(schedule: Cyclical) -> None:
    collected = [p for p in plans(schedule) if p.collect]
    assert len(collected) == schedule.num_draws
    assert {p.phase for p in collected} <= {"sample"}
    assert {sum(p.cycle == c for p in collected) for c in range(1, schedule.cycles + 1)} <= {schedule.draws_per_cycle}


@exact
@given(schedule=schedules())
def test_nothing_is_collected_while_relaxing_and_draws_are_thin_apart(schedule: Cyclical) -> None:
    first = [p for p in plans(schedule) if p.cycle == 1 and p.phase == "sample"]
    positions = [i + 1 for i, p in enumerate(first) if p.collect]
    assert positions == list(range(schedule.relax + schedule.thin, schedule.sample + 1, schedule.thin))


@exact
@given(schedule=schedules())
def test_a_cycle_ends_with_its_last_step(schedule: Cyclical) -> None:
    steps = plans(schedule)
    ends = [t for t, p in enumerate(steps) if p.end_of_cycle]
    length = schedule.explore + schedule.sample
    assert ends == [schedule.burn_in + length * c - 1 for c in range(1, schedule.cycles + 1)]
    assert all(steps[t].fraction == 1 for t in ends)
    assert steps[-1].lr == schedule.lr_min


@exact
@given(schedule=schedules(min_cycles=0))
def test_friction_per_unit_of_physical_time_is_constant(schedule: Cyclical) -> None:
    for plan in plans(schedule):
        expected = math.sqrt(plan.lr / schedule.lr) * (1 - schedule.momentum)
        assert 1 - plan.momentum == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert 0 <= plan.momentum < 1


@exact
@given(schedule=schedules(min_cycles=0))
def test_annealing_falls_from_the_top(schedule: Cyclical) -> None:
    for phase, top in [("burn_in", schedule.lr), ("explore", schedule.lr_explore)]:
        steps = [p.lr for p in plans(schedule) if p.phase == phase and p.cycle <= 1]
        assert steps == sorted(steps, reverse=True)
        assert steps[:1] == pytest.approx([top][: len(steps)], rel=1e-12)


def test_annealing_by_hand() -> None:
    schedule = replace(SCHEDULE, burn_in=4, momentum=0.5)
    falls = [0.4, 0.1 + 0.3 * (1 + math.sqrt(0.5)) / 2, 0.25, 0.1 + 0.3 * (1 - math.sqrt(0.5)) / 2]
    assert [schedule(t).lr for t in range(4)] == pytest.approx(falls)
    assert schedule(2).momentum == pytest.approx(1 - 0.5 * math.sqrt(0.25 / 0.4))
    assert schedule(2).fraction == 0.5


def test_a_constant_step() -> None:
    schedule = Cyclical(0.1, 0.1, 0.1, momentum=0.9, temperature=1.0, burn_in=3, cycles=1, explore=0, sample=4)
    assert {p.lr for p in plans(schedule)} == {0.1}
    assert [p.momentum for p in plans(schedule)] == pytest.approx([0.9] * 7)
    assert [p.collect for p in plans(schedule)] == [False] * 3 + [True] * 4


@pytest.mark.parametrize("explore_temperature", [None, 0.0, 0.25])
def test_explorations_may_have_their_own_temperature(explore_temperature: float | None) -> None:
    schedule = replace(SCHEDULE, explore_temperature=explore_temperature)
    cold = 0.5 if explore_temperature is None else explore_temperature
    expected = {"burn_in": 0.5, "explore": cold, "sample": 0.5}
    assert all(p.temperature == expected[p.phase] for p in plans(schedule))
    assert [replace(p, temperature=0.5) for p in plans(schedule)] == plans(SCHEDULE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(SCHEDULE, lr_min=0.0), "0 < lr_min <= lr_explore <= lr"),
        (lambda: replace(SCHEDULE, lr_min=0.3), "0 < lr_min <= lr_explore <= lr"),
        (lambda: replace(SCHEDULE, lr_min=1e-300), "lr_min is 1e-300 and lr 0.4: a step that is so much smaller"),
        (lambda: replace(SCHEDULE, lr_min=1e-16), "usual is a tenth to a hundredth of lr"),
        (lambda: replace(SCHEDULE, lr_explore=0.5), "0 < lr_min <= lr_explore <= lr"),
        (lambda: replace(SCHEDULE, lr=math.nan), "0 < lr_min <= lr_explore <= lr"),
        (lambda: replace(SCHEDULE, burn_in=-1), "must be >= 0"),
        (lambda: replace(SCHEDULE, explore_temperature=-0.1), "explore_temperature is -0.1"),
        (lambda: replace(SCHEDULE, explore_temperature=math.nan), "explore_temperature is nan"),
        (lambda: replace(SCHEDULE, explore=-1), "must be >= 0"),
        (lambda: replace(SCHEDULE, relax=-1), "must be >= 0"),
        (lambda: replace(SCHEDULE, cycles=-1), "must be >= 0"),
        (lambda: replace(SCHEDULE, thin=0), "thin >= 1"),
        (lambda: replace(SCHEDULE, relax=8), "would hold no draw; it needs relax \\+ thin = 9"),
        (lambda: SCHEDULE(-1), "step -1 is outside"),
        (lambda: SCHEDULE(SCHEDULE.num_steps), "outside the schedule of 46 steps"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@exact
@given(schedule=schedules(min_cycles=0))
def test_annealing_the_time_step_takes_the_effective_step_of_sgd_along_one_cosine(schedule: Cyclical) -> None:
    """l / (1 - beta) is the learning rate that SGD with momentum amounts to."""
    annealed = replace(schedule, anneal="time_step")

    def effective(lr: float) -> float:
        return math.sqrt(lr * schedule.lr) / (1 - schedule.momentum)

    for step, plan in enumerate(plans(annealed)):
        assert plan.phase == schedule(step).phase
        start = {"burn_in": schedule.lr, "explore": schedule.lr_explore, "sample": schedule.lr_min}[plan.phase]
        cosine = (1 + math.cos(math.pi * plan.fraction)) / 2 if plan.phase != "sample" else 0.0
        expected = effective(schedule.lr_min) + (effective(start) - effective(schedule.lr_min)) * cosine
        assert plan.lr / (1 - plan.momentum) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("anneal", ["Time_step", None, 2])
def test_another_annealing_is_refused(anneal: Any) -> None:
    with pytest.raises(ValueError, match="choose one of step, time_step"):
        replace(SCHEDULE, anneal=anneal)


def test_both_annealings_begin_and_end_at_the_same_step() -> None:
    other = replace(SCHEDULE, anneal="time_step")
    for step in (0, SCHEDULE.burn_in, SCHEDULE.num_steps - 1):
        assert other(step).lr == pytest.approx(SCHEDULE(step).lr, rel=1e-12)
    assert other(3).lr < SCHEDULE(3).lr
