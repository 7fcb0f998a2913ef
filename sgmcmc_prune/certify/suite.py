"""What is certified: every sampler with every preconditioner, in a quick and a full version.

A faster implementation of a rule is compared with its reference in `tier_cases`, which takes all that can run. A new
sampler that is linear on a quadratic potential gets its equations in `recursions` and one line in `LINEAR`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol

import torch

from sgmcmc_prune.certify import recursions
from sgmcmc_prune.certify.cyclical import CyclicalCase
from sgmcmc_prune.certify.extrapolation import Mass, SmallStepCase
from sgmcmc_prune.certify.linear import LinearCase
from sgmcmc_prune.certify.logistic import quadrature_target, reference_target
from sgmcmc_prune.certify.mixtures import simulated_spike_slab
from sgmcmc_prune.certify.replicates import MakeSampler
from sgmcmc_prune.certify.scaling import ScalingCase
from sgmcmc_prune.certify.statistics import Row
from sgmcmc_prune.certify.stochastic_em import StochasticEMCase
from sgmcmc_prune.certify.table import Certificate
from sgmcmc_prune.certify.targets import correlated_gaussian, simulated_regression, standard_normal
from sgmcmc_prune.certify.tiers import TierCase
from sgmcmc_prune.preconditioners import Layerwise, PositionDependent, RMSprop
from sgmcmc_prune.samplers import BAOAB, OBABO, SGHMC, SGLD, SGNHT, AdaptiveSGHMC
from sgmcmc_prune.samplers.tiers import available

MOMENTUM = 0.7


class Case(Protocol):
    """What the suite is made of."""

    def rows(self, seed: int) -> list[Row]:
        """Run it."""


class Linear(NamedTuple):
    """A sampler that is linear on a quadratic potential, its equations, its momentum, and the masses it can have."""

    make: MakeSampler
    step: recursions.Step
    momentum: float | None = MOMENTUM
    masses: tuple[bool, bool] = (False, True)


LINEAR = {
    "SGLD": Linear(SGLD, recursions.sgld, None),
    "SGHMC": Linear(SGHMC, recursions.sghmc),
    "BAOAB": Linear(BAOAB, recursions.baoab),
    "OBABO": Linear(OBABO, recursions.obabo),
    "AdaptiveSGHMC, frozen": Linear(AdaptiveSGHMC, recursions.sghmc, masses=(True, True)),
}
#: Every tensor has a thermostat of its own, and is a replicate.
THERMOSTAT = {"momentum": MOMENTUM, "rate": 0.02}
#: M between 2/3 and 2, and the derivative of 1 / M.
POSITION = PositionDependent(lambda w: 1 / (0.5 + 1 / (1 + w**2)), lambda w: -2 * w / (1 + w**2) ** 2)


def tier_cases() -> list[Case]:
    """Every implementation that can run here against its reference, and two samplers that coincide."""
    same = partial(TierCase, target=correlated_gaussian(3))
    plain = {"lr": 0.1, "temperature": 2.0}
    cases: list[Case] = [
        same(
            "SGHMC without momentum = SGLD", SGHMC, SGLD, settings={**plain, "momentum": 0.0}, reference_settings=plain
        )
    ]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for tier in available(device)[1:]:
            cases += equality_cases(tier, device, {"": {}})
    return cases


#: By a word for the table, the noises with which a tier must take the reference's steps.
NOISES = {"": {}, " with random signs": {"noise": "rademacher"}}


def equality_cases(tier: str, device: str, settings: Mapping[str, Any] = NOISES) -> list[Case]:
    """A tier's SGHMC and SGLD against those of the reference, in float32."""
    plain: dict[str, Any] = {"lr": 0.1, "temperature": 2.0}
    return [
        TierCase(
            f"{make.__name__}{words}, {tier} = reference, {device}",
            make,
            make,
            correlated_gaussian(3),
            settings={**plain, **further, "implementation": tier},
            reference_settings={**plain, **further, "implementation": "reference"},
            dtype=torch.float32,
            device=device,
            tolerance=1e-5,
        )
        for (words, further), make in product(settings.items(), (SGHMC, SGLD))
    ]


def tier_suite(tier: str, device: str, replicates: int = 4096) -> list[Case]:
    """One tier by itself, in float32: the reference's steps, and the exact law of a Gaussian at a finite step."""
    cases, options = equality_cases(tier, device), {"implementation": tier}
    for name in ("SGHMC", "SGLD"):
        cases += linear_cases(name, 3, replicates=replicates, dtype=torch.float32, device=device, options=options)
    return cases


def linear_cases(name: str, dimension: int, **options: Any) -> list[Case]:
    """One linear sampler on a correlated Gaussian, with both mass matrices, noisy gradients, and T = 0.5 and 2."""
    make, step, momentum, masses = LINEAR[name]
    target, lr = correlated_gaussian(dimension), 0.1 if momentum is None else 0.2
    settings = {"gradient_variance": 0.02, **options}
    return [
        LinearCase(name, make, step, target, lr, momentum, temperature, diagonal, **settings)
        for temperature, diagonal in zip((0.5, 2.0), masses, strict=True)
    ]


def posterior_cases(name: str, **options: Any) -> list[Case]:
    """One sampler on logistic regression in two dimensions, with its mass matrices."""
    make, momentum, masses = LINEAR[name].make, LINEAR[name].momentum, LINEAR[name].masses
    lr, settings = (2.0, {}) if momentum is None else (1.0, {"momentum": momentum})
    words: list[Mass] = ["diagonal" if diagonal else "identity" for diagonal in dict.fromkeys(masses)]
    return [SmallStepCase(name, mass, make, quadrature_target(), lr, settings, mass, **options) for mass in words]


def adapting_cases(**options: Any) -> list[Case]:
    """Masses that are learned in the burn-in and frozen, one that moves for ever, and a sampler known to be wrong."""
    momentum = {"momentum": MOMENTUM}
    small: Any = partial(SmallStepCase, target=correlated_gaussian(3), lr=0.1, mass="adapt", burn_in=100, **options)
    return [
        small("SGHMC", "RMSprop, then frozen", SGHMC, settings={**momentum, "preconditioner": RMSprop()}),
        small("BAOAB", "layer-wise, then frozen", BAOAB, settings={**momentum, "preconditioner": Layerwise()}),
        small("AdaptiveSGHMC", "learned, then frozen", AdaptiveSGHMC, settings=momentum),
        SmallStepCase(
            "SGLD", "M(w) with Gamma", SGLD, standard_normal(3), 1.0, {"preconditioner": POSITION}, replicates=4096
        ),
        small(
            "AdaptiveSGHMC, as released",
            "learned, then frozen",
            partial(AdaptiveSGHMC, form="released"),
            settings=momentum,
            must_fail=True,
        ),
    ]


def thermostat_cases(**options: Any) -> list[Case]:
    """SGNHT on the logistic regression, and under gradient noise of which nobody tells it: it must keep T."""
    small: Any = partial(
        SmallStepCase, "SGNHT", make=SGNHT, settings=THERMOSTAT, tensors=64, replicates=2048, **options
    )
    return [
        small(preconditioner="identity", target=quadrature_target(), lr=1.0),
        small(preconditioner="identity", target=correlated_gaussian(3), lr=0.1, gradient_variance=0.02),
    ]


def sparse_cases(features: int, **options: Any) -> list[Case]:
    """Spike-and-slab regression against the enumeration of all models."""
    target = simulated_spike_slab(features)
    settings = {"momentum": MOMENTUM}
    return [SmallStepCase("SGHMC", "identity", SGHMC, target, 0.04, settings, burn_in=200, steps=400, **options)]


def quick_suite() -> list[Case]:
    """Every sampler and every preconditioner once."""
    cases = tier_cases()
    for name, (make, step, momentum, masses) in LINEAR.items():
        cases.append(ScalingCase(name, make, correlated_gaussian(3), 0.1, momentum))
        cases += linear_cases(name, 3)
        regression = partial(LinearCase, name, make, step, simulated_regression(), 0.1, momentum)
        cases.append(regression(diagonal=masses[0], replicates=512))
        cases += posterior_cases(name, replicates=512)
    cases += linear_cases("SGHMC", 50, replicates=256)
    cases += [*thermostat_cases(steps=60), *adapting_cases(), *sparse_cases(4, replicates=512)]
    return [*cases, CyclicalCase("SGHMC", SGHMC, MOMENTUM, 0.6, replicates=4096)]


def full_suite() -> list[Case]:
    """More dimensions, more replicates, longer runs, measured orders, NUTS references, twelve features, EM."""
    cases = quick_suite()
    for name, (make, _, momentum, masses) in LINEAR.items():
        cases += [*linear_cases(name, 3, replicates=16_384), *linear_cases(name, 50, replicates=1024)]
        cases += [*linear_cases(name, 1000, replicates=64)[1:], *posterior_cases(name, replicates=2048)]
        lr, settings = (2.0, {}) if momentum is None else (1.0, {"momentum": momentum})
        longer: dict[str, Any] = {"burn_in": 100, "steps": 300, "replicates": 4096}
        mass: Mass = "diagonal" if masses[0] else "identity"
        cases.append(SmallStepCase(name, mass, make, reference_target(), lr, settings, mass, **longer))
    cases += [*thermostat_cases(steps=300), *order_cases(), *sparse_cases(12, replicates=1024), StochasticEMCase()]
    return [
        *cases,
        CyclicalCase("SGLD", SGLD, None, 1.0),
        CyclicalCase("BAOAB", BAOAB, MOMENTUM, 0.6, replicates=16_384),
    ]


def order_cases() -> list[Case]:
    """The bias is of order 1 in l (2 in the time step h): steps l, l / 2, l / 4."""
    order: Any = partial(SmallStepCase, target=standard_normal(3), order=True, steps=240)
    momentum = {"momentum": MOMENTUM}
    return [
        order("SGLD", "identity", SGLD, lr=1.0, replicates=8192),
        order("SGLD", "M(w) with Gamma", SGLD, lr=1.0, settings={"preconditioner": POSITION}, replicates=16_384),
        order("SGHMC", "identity", SGHMC, lr=2.0, settings=momentum, replicates=8192),
        order("SGNHT", "identity", SGNHT, lr=2.0, settings=THERMOSTAT, tensors=64, replicates=8192),
    ]


def certify(
    quick: bool = False,
    seed: int = 0,
    false_alarm: float = 1e-3,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = iter,
) -> Certificate:
    """Run the suite.

    Parameters
    ----------
    quick : bool
        Under a minute on one core, instead of the full run.
    seed : int
        0 <= seed < 4000; every case has its own noise.
    false_alarm : float
        For the whole table.
    progress : callable
        Wraps the cases, such as `tqdm`.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        If the seed or the rate is out of range.
    """
    if not 0 <= seed < 4000:
        raise ValueError(f"seed is {seed}; choose 0 to 3999")
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it must be inside (0, 1)")
    return certified(progress(quick_suite() if quick else full_suite()), seed, false_alarm, quick)


def certified(cases: Iterable[Case], seed: int, false_alarm: float, quick: bool) -> Certificate:
    """Run some cases, each with its own noise."""
    started = time.process_time()
    rows: list[Row] = []
    for number, case in enumerate(cases):
        rows += case.rows(10**6 * seed + 10 * number)
    return Certificate(rows, false_alarm, seed, quick, time.process_time() - started)
