"""Planted bugs: each is caught by rows of the quick suite, at the false-alarm rate of the whole quick table.

A bug is planted in a subclass, and the cases of the quick suite that concern its sampler run on the subclass.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.certify import recursions
from sgmcmc_prune.certify.extrapolation import SmallStepCase
from sgmcmc_prune.certify.linear import LinearCase
from sgmcmc_prune.certify.scaling import ScalingCase
from sgmcmc_prune.certify.statistics import Row
from sgmcmc_prune.certify.suite import POSITION, quick_suite
from sgmcmc_prune.preconditioners import PositionDependent, inverse_mass
from sgmcmc_prune.samplers import BAOAB, SGHMC, SGLD, SGNHT, Sampler
from sgmcmc_prune.samplers import sgnht as thermostat_module

#: Bonferroni for the largest table: stricter than Holm's procedure over the quick one.
THRESHOLD = 1e-3 / 500


def cases_of(sampler: str, kind: type) -> list[Any]:
    """The quick suite's cases of one kind for one sampler."""
    return [case for case in quick_suite() if isinstance(case, kind) and case.sampler == sampler]


def rows_on(sampler: str, kind: type, planted: Any, **changes: Any) -> list[Row]:
    """Their rows, with the planted sampler in the place of the right one."""
    (case, *others) = cases_of(sampler, kind)
    rows = []
    for number, each in enumerate([case, *others]):
        rows += replace(each, make=planted, **changes).rows(seed=100 + number)
    return rows


def caught(rows: Sequence[Row]) -> list[str]:
    """The statistics that are rejected."""
    return [row.statistic for row in rows if row.p_value < THRESHOLD]


class NoSquareRoot(SGHMC):
    """Noise of standard deviation 2 (1 - beta) T / (N l), the variance it should have."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        scale = math.sqrt(2 * (1 - group["momentum"]) * group["temperature"] / (group["num_data"] * group["lr"]))
        super()._update(p, force, None if noise is None else noise * scale, state, group)


class WithoutN(SGLD):
    """N is left out of the noise."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        super()._update(p, force, None if noise is None else noise * math.sqrt(group["num_data"]), state, group)


class UnscaledNoise(SGLD):
    """M^-1/2 is missing on the noise."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        if noise is not None and "mass" in state:
            noise = noise * state["mass"].sqrt()
        super()._update(p, force, noise, state, group)


class WrongFriction(BAOAB):
    """beta where 1 - beta belongs: the noise is that of the friction beta."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        beta = group["momentum"]
        super()._update(p, force, None if noise is None else noise * math.sqrt(beta / (1 - beta)), state, group)


class PriorTwice(SGHMC):
    """The prior's force is added twice."""

    def force(self, name: str, p: Tensor, num_data: int) -> Tensor:
        once = super().force(name, p, num_data)
        assert p.grad is not None
        return 2 * once - p.grad


class TemperedLikelihood(SGLD):
    """The temperature acts on the likelihood alone: the target is likelihood^(1/T) times the prior."""

    def force(self, name: str, p: Tensor, num_data: int) -> Tensor:
        assert p.grad is not None
        temperature = self.param_groups[0]["temperature"]
        return p.grad + temperature * (super().force(name, p, num_data) - p.grad)


class NoisePerHalfStep(BAOAB):
    """sqrt(1 - beta) for sqrt(1 - beta^2) in the refreshment."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        super()._update(p, force, None if noise is None else noise / math.sqrt(1 + group["momentum"]), state, group)


class StaleNoise(SGHMC):
    """The same normals at every other step: variances are right in no direction of time."""

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        if group["step"] % 2 == 1:
            noise = state["stale"]
        state["stale"] = noise
        super()._update(p, force, noise, state, group)


LINEAR_BUGS: list[tuple[str, type[Sampler], str]] = [
    ("SGHMC", NoSquareRoot, "log variance, widest"),
    ("SGLD", WithoutN, "log variance, widest"),
    ("SGLD", UnscaledNoise, "log variance, widest"),
    ("BAOAB", WrongFriction, "log kinetic temperature"),
    ("SGHMC", PriorTwice, "log variance, widest"),
    ("SGLD", TemperedLikelihood, "log variance, widest"),
    ("BAOAB", NoisePerHalfStep, "log kinetic temperature"),
    ("SGHMC", StaleNoise, "log kinetic temperature"),
]


@pytest.mark.parametrize(("sampler", "planted", "statistic"), LINEAR_BUGS)
def test_a_bug_in_a_linear_sampler_is_caught(sampler: str, planted: type[Sampler], statistic: str) -> None:
    assert statistic in caught(rows_on(sampler, LinearCase, planted, replicates=1024))


def test_the_distribution_tests_see_a_bug_by_themselves() -> None:
    found = caught(rows_on("BAOAB", LinearCase, WrongFriction))
    assert {"Kolmogorov-Smirnov D", "Anderson-Darling A2"} <= set(found)


@pytest.mark.parametrize(("planted", "relation"), [(NoSquareRoot, "T"), (NoSquareRoot, "N"), (TemperedLikelihood, "T")])
def test_a_wrong_power_of_temperature_or_of_the_data_is_caught_to_rounding(
    planted: type[Sampler], relation: str
) -> None:
    rows = rows_on("SGHMC" if planted is NoSquareRoot else "SGLD", ScalingCase, planted)
    assert any(f" {relation}" in statistic for statistic in caught(rows))


def test_the_thermostat_with_an_absolute_value_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """|m| for m^2 in T_K: at the right temperature its mean is sqrt(2 / pi)."""

    def wrong(buffer: Tensor, mass: Tensor | None, unit: float, dimension: int) -> Tensor:
        return (buffer * inverse_mass(mass, buffer) * unit).abs().sqrt().sum() / dimension - 1

    case = next(case for case in cases_of("SGNHT", SmallStepCase) if case.gradient_variance)
    monkeypatch.setattr(thermostat_module, "_excess", wrong)
    assert len(caught(case.rows(seed=7))) == 3


def test_a_thermostat_that_does_not_react_is_caught() -> None:
    """BAOAB in the place of SGNHT: minibatch noise heats it."""

    def unregulated(parameters: Any, rate: float, **settings: Any) -> Sampler:
        return BAOAB(parameters, **settings)

    case = next(case for case in cases_of("SGNHT", SmallStepCase) if case.gradient_variance)
    assert caught(replace(case, make=unregulated, tensors=64, lr=0.8).rows(seed=8))
    assert issubclass(SGNHT, Sampler)


def test_a_mass_from_the_current_gradient_without_gamma_is_caught() -> None:
    without = PositionDependent(POSITION.mass, torch.zeros_like)
    case = next(case for case in cases_of("SGLD", SmallStepCase) if "Gamma" in case.preconditioner)
    assert len(caught(replace(case, settings={"preconditioner": without}).rows(seed=9))) == 3


def test_the_right_samplers_pass_the_same_rows() -> None:
    """What the tests above rely on; false alarms at 1e-3 in all."""
    for name, make in {"SGLD": SGLD, "SGHMC": SGHMC, "BAOAB": BAOAB}.items():
        assert caught(rows_on(name, LinearCase, make, replicates=1024)) == []
        assert caught(rows_on(name, ScalingCase, make)) == []


def test_the_law_of_another_scheme_is_told_apart() -> None:
    """OBABO is not BAOAB: the rows see a step-size bias of a few percent."""
    case = cases_of("BAOAB", LinearCase)[1]
    rows = replace(case, step=recursions.obabo, replicates=4096).rows(seed=11)
    assert "log variance, narrowest" in caught(rows)
