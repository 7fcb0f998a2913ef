"""Whether a run is at its temperature, in words, with a stated rate of false alarms.

A run is called off its temperature if a kinetic temperature of any parameter, chain and draw leaves its chi-square
band, or if the batch-means interval of any chain's configurational temperature misses T. Half of `FALSE_ALARM` is
shared by the checks of each kind (Bonferroni), so that a run with exact gradients and small steps is called off with at
most that probability, however its checks depend on each other. (For the interval that holds as batches grow long.)

A chain with under eight batches has no interval. Then the batches of all chains make one, by Student's t: chains at
their temperature share its mean. Where that does not tell a mean from T, one that is further from T than 2 T is a
finding all the same, by its size alone and with no stated rate of false alarms: a run is not fine because it is short.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgmcmc_prune.diagnostics.batch_means import batch_means, batch_means_interval
from sgmcmc_prune.diagnostics.temperature import KINETIC_FACTORS, kinetic_band
from sgmcmc_prune.predictive.intervals import mean_and_half_width

#: Probability at most of calling off a run that is at its temperature.
FALSE_ALARM = 0.01
#: Without an interval, a mean that is further from T than so many T is off.
FAR = 2.0
#: Parameters named in a finding; the others are in the store.
NAMED = 5


def judge(
    kinetic: np.ndarray,
    configurational: np.ndarray,
    sizes: Mapping[str, int],
    excess: Sequence[float],
    *,
    temperature: float,
    momentum: float,
    integrator: str | None,
    batches: int,
) -> dict[str, Any]:
    """Hold the temperatures of a run against their bands.

    Parameters
    ----------
    kinetic : array, shape (chain, draw, parameter)
        Kinetic temperature of every parameter tensor.
    configurational : array, shape (chain, draw)
        Of the whole network.
    sizes : mapping of str to int
        Entries of every parameter, in the order of the last dimension.
    excess : sequence of float
        Estimated heat of minibatch noise, by parameter; NaN where unknown.
    temperature, momentum : float
        T and beta while draws are collected.
    integrator : str or None
        The sampler's; for None (no momentum) and for what is not in `KINETIC_FACTORS` there is no band, and `kinetic`
        says why.
    batches : int
        For the interval: whole cycles in a cyclical run.

    Returns
    -------
    dict
        JSON values: `kinetic` (`reason` why there is no band, or none; `expected`; and by parameter `mean`, `low`,
        `high`, `outside`, `checks`, `excess`), `configurational` (by chain `mean`, `low`, `high`), `pooled` (the same
        of all chains, where a chain has no interval of its own, or None), `excess` (of the network), `false_alarm`,
        and `findings`, one sentence for each way in which the run is off.
    """
    chains = [_interval(x, batches, FALSE_ALARM / 2 / len(configurational)) for x in configurational]
    lacking = any(math.isnan(row["low"]) for row in chains)
    pooled = _pooled_interval(configurational, batches, FALSE_ALARM / 2) if lacking else None
    reason = _why_no_band(kinetic, temperature, integrator)
    parameters, expected = {}, math.nan
    if integrator is not None and not reason:
        parameters = _bands(kinetic, sizes, excess, temperature, momentum, integrator)
        expected = KINETIC_FACTORS[integrator](momentum) * temperature
    return {
        "false_alarm": FALSE_ALARM,
        "kinetic": {"reason": reason, "expected": expected, "parameters": parameters},
        "configurational": chains,
        "pooled": pooled,
        "excess": _mean_excess(excess, sizes),
        "findings": [
            *_coinciding_findings(kinetic),
            *_kinetic_findings(parameters, expected),
            *_configurational_findings(chains, temperature),
            *_pooled_findings(pooled, temperature),
        ],
    }


def _mean_excess(excess: Sequence[float], sizes: Mapping[str, int]) -> float:
    """Average over all entries whose heat is known."""
    known = {name: heat for name, heat in zip(sizes, excess, strict=True) if math.isfinite(heat)}
    return (
        sum(heat * sizes[name] for name, heat in known.items()) / sum(sizes[name] for name in known)
        if known
        else math.nan
    )


def _why_no_band(kinetic: np.ndarray, temperature: float, integrator: str | None) -> str | None:
    if temperature == 0:
        return "at temperature 0 nothing is sampled"
    if integrator is None:
        return "the sampler has no momentum"
    if integrator not in KINETIC_FACTORS:
        return f"no band is known for the integrator {integrator!r}"
    return None if np.isfinite(kinetic).all() else "not every draw has a kinetic temperature"


def _bands(
    kinetic: np.ndarray,
    sizes: Mapping[str, int],
    excess: Sequence[float],
    temperature: float,
    momentum: float,
    integrator: str,
) -> dict[str, dict[str, Any]]:
    probability = 1 - FALSE_ALARM / 2 / kinetic.size
    rows = {}
    for (name, size), values, heat in zip(sizes.items(), np.moveaxis(kinetic, 2, 0), excess, strict=True):
        low, high = kinetic_band(temperature, size, momentum, probability, integrator)
        outside = int(((values < low) | (values > high)).sum())
        row = {"mean": float(values.mean()), "low": low, "high": high, "outside": outside, "checks": values.size}
        rows[name] = {**row, "excess": float(heat)}
    return rows


def _interval(x: np.ndarray, batches: int, level: float) -> dict[str, float]:
    if not np.isfinite(x).all() or batches < 1:
        return dict.fromkeys(("mean", "low", "high"), math.nan)
    low, high = batch_means_interval(x, 1 - level, batches)
    return {"mean": batch_means(x, batches).mean, "low": low, "high": high}


def _pooled_interval(x: np.ndarray, batches: int, level: float) -> dict[str, float]:
    """Mean of all chains and its interval, from the batches of all of them; NaN for fewer than two."""
    if not np.isfinite(x).all() or not 1 <= batches <= x.shape[1]:
        return dict.fromkeys(("mean", "low", "high"), math.nan)
    means = x[:, x.shape[1] % batches :].reshape(len(x) * batches, -1).mean(1)
    mean, half = mean_and_half_width(means, 1 - level)
    return {"mean": float(mean), "low": float(mean - half), "high": float(mean + half)}


def _coinciding_findings(kinetic: np.ndarray) -> list[str]:
    """Chains with the same kinetic temperatures, to the last digit, in all parameters and draws."""
    moving = [
        bool(np.isfinite(chain).all()) and chain.size > 0 and bool((chain != chain[0]).any()) for chain in kinetic
    ]
    return [
        f"chains {a} and {b} have the same temperatures in every draw: they are one chain, counted twice"
        for a, b in itertools.combinations(range(len(kinetic)), 2)
        if moving[a] and moving[b] and np.array_equal(kinetic[a], kinetic[b])
    ]


def _kinetic_findings(parameters: Mapping[str, Mapping[str, Any]], expected: float) -> list[str]:
    off = {name: row for name, row in parameters.items() if row["outside"]}
    if not off:
        return []
    name, row = max(off.items(), key=lambda item: abs(math.log(max(item[1]["mean"], 1e-9) / expected)))
    noise = f"; minibatch noise is estimated to add {row['excess']:.2g} to T there" if row["excess"] > 0 else ""
    named = ", ".join(list(off)[:NAMED]) + (", ..." if len(off) > NAMED else "")
    return [
        f"kinetic temperature is off in {len(off)} of {len(parameters)} parameters ({named}); most in {name}: "
        f"on average {row['mean']:.3f} where {expected:.3f} is expected{noise}"
    ]


def _configurational_findings(chains: Sequence[Mapping[str, float]], temperature: float) -> list[str]:
    return [
        f"configurational temperature of chain {chain} is off: {row['mean']:.3f}, interval {row['low']:.3f} to "
        f"{row['high']:.3f}, where {temperature:g} is expected"
        for chain, row in enumerate(chains)
        if row["low"] > temperature or row["high"] < temperature
    ]


def _pooled_findings(pooled: Mapping[str, float] | None, temperature: float) -> list[str]:
    if pooled is None:
        return []
    mean, low, high = pooled["mean"], pooled["low"], pooled["high"]
    if low > temperature or high < temperature:
        return [
            f"configurational temperature of all chains is off: {mean:.3f}, interval {low:.3f} to {high:.3f}, where "
            f"{temperature:g} is expected"
        ]
    if temperature > 0 and abs(mean - temperature) > FAR * temperature:
        return [
            f"configurational temperature of all chains is far off: {mean:.3g}, where {temperature:g} is expected (by "
            "its size: the draws are too few for an interval that tells)"
        ]
    return []
