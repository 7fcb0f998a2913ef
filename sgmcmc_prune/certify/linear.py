"""Linear samplers on Gaussian posteriors: the exact law at a finite step, to which nothing has to converge.

Every replicate starts in the exact stationary law of the discretised chain, runs for a relaxation time, in which a
wrong sampler drifts away, and is then measured over two more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgmcmc_prune.certify import recursions
from sgmcmc_prune.certify.recursions import Law, Quadratic, Step
from sgmcmc_prune.certify.replicates import MakeSampler, Replicates
from sgmcmc_prune.certify.statistics import Label, Row, distribution_rows, mean_row
from sgmcmc_prune.certify.targets import Gaussian, LinearRegression

Array = NDArray[np.float64]
MEASUREMENTS = 40


@dataclass(frozen=True)
class LinearCase:
    """One sampler, one mass matrix, one Gaussian posterior.

    Parameters
    ----------
    sampler : str
        For the table.
    make : callable
        The sampler's class.
    step : Step
        Its equations, from `recursions`.
    target : Gaussian or LinearRegression
    lr, momentum, temperature : float
        momentum None is a sampler without.
    diagonal : bool
        A frozen diagonal mass matrix instead of the identity.
    gradient_variance : float
        Of the noise added to gradients.
    replicates : int
    dtype, device
        Of the positions.
    options : mapping
        Further settings of the sampler.
    """

    sampler: str
    make: MakeSampler
    step: Step
    target: Gaussian | LinearRegression
    lr: float
    momentum: float | None = None
    temperature: float = 1.0
    diagonal: bool = False
    gradient_variance: float = 0.0
    replicates: int = 4096
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mass(self) -> Array | None:
        """Masses between 1/2 and 3, or None for the identity."""
        return np.random.default_rng(7).uniform(0.5, 3.0, self.target.dimension) if self.diagonal else None

    @property
    def label(self) -> Label:
        """First columns of the rows: the target with whatever differs from the plain posterior."""
        extras = [f"T = {self.temperature:g}"] if self.temperature != 1 else []
        extras += ["noisy gradients"] if self.gradient_variance else []
        return Label(self.sampler, "diagonal" if self.diagonal else "identity", ", ".join([self.target.name, *extras]))

    @cached_property
    def problem(self) -> Quadratic:
        """The same, as the recursions take it."""
        mass = np.ones(self.target.dimension) if self.mass is None else self.mass
        fixed = (self.target.curvature, self.lr, self.target.num_data, mass)
        return Quadratic(*fixed, self.momentum or 0.0, self.temperature, self.gradient_variance)

    @cached_property
    def law(self) -> Law:
        """Exact stationary law of (w - mean, b)."""
        return recursions.stationary(self.problem, self.step)

    def rows(self, seed: int) -> list[Row]:
        """Run the replicates and compare."""
        measured, d = _Measured(self), self.target.dimension
        settings: dict[str, Any] = {"lr": self.lr, "temperature": self.temperature, "seed": seed}
        settings |= {} if self.momentum is None else {"momentum": self.momentum}
        settings |= {"dtype": self.dtype, "device": self.device, **self.options}
        chains = Replicates(self.make, self.target, self.replicates, mass=self.mass, **settings)
        chains.sampler.freeze()
        normals = np.random.default_rng(seed).standard_normal((self.replicates, 2 * d))
        deviations, buffers = np.split(normals @ _square_root(self.law.covariance).T, 2, axis=1)
        chains.place(self.target.mean + deviations, buffers)
        every = max(1, 2 * self.law.relaxation // MEASUREMENTS)
        steps = self.law.relaxation + every * MEASUREMENTS
        for t in chains.advance(steps, self.gradient_variance, seed):
            if t >= self.law.relaxation and (steps - 1 - t) % every == 0:
                measured.add(chains.positions, chains.buffer)
        return measured.rows(chains.positions)


class _Measured:
    """Statistics of a case, averaged over time for each replicate."""

    def __init__(self, case: LinearCase) -> None:
        self.case = case
        d = case.target.dimension
        self.positions, self.buffers = case.law.covariance[:d, :d], case.law.covariance[d:, d:]
        eigenvectors = np.linalg.eigh(self.positions)[1]
        random = np.random.default_rng(3).standard_normal((2, d))
        rows = [eigenvectors[:, -1], eigenvectors[:, 0], *random / np.linalg.norm(random, axis=1, keepdims=True)]
        self.directions = dict(zip(("widest", "narrowest", "random 1", "random 2"), rows, strict=True))
        self.first: list[Array] = []
        self.second: list[Array] = []
        self.heat: list[Array] = []

    def add(self, w: Array, buffer: Array | None) -> None:
        """Measure all replicates at one time."""
        problem, deviation = self.case.problem, w - self.case.target.mean
        projected = deviation @ np.stack(list(self.directions.values())).T
        self.first.append(projected)
        self.second.append(projected**2)
        d, n = problem.dimension, problem.num_data
        configurational = n / d * ((deviation @ problem.curvature) * deviation).sum(1)
        kinetic = np.zeros(len(w)) if buffer is None else (buffer**2 / problem.mass).sum(1) * self._momentum_unit() / d
        self.heat.append(np.stack([configurational, kinetic], axis=1))

    def _momentum_unit(self) -> float:
        """(m / b)^2 of the physical momentum m: N l for symplectic Euler, (N h)^2 for the splitting schemes."""
        problem = self.case.problem
        if self.case.step is recursions.sghmc:
            return problem.num_data * problem.lr
        return (problem.num_data * recursions.time_step(problem)) ** 2

    def rows(self, last: Array) -> list[Row]:
        """Means, variances, temperatures, and the distribution of the last positions."""
        label, problem = self.case.label, self.case.problem
        first, second, heat = (np.mean(values, axis=0) for values in (self.first, self.second, self.heat))
        found = []
        for i, (name, v) in enumerate(self.directions.items()):
            found.append(
                mean_row(label, f"log variance, {name}", float(v @ self.positions @ v), second[:, i], log=True)
            )
        if self.case.target.mean.any():
            for i, (name, v) in enumerate(self.directions.items()):
                exact = float(v @ self.case.target.mean)
                found.append(mean_row(label, f"mean, {name}", exact, first[:, i] + exact))
        d, n = problem.dimension, problem.num_data
        exact = n / d * float((problem.curvature * self.positions).sum())
        found.append(mean_row(label, "log configurational temperature", exact, heat[:, 0], log=True))
        if self.case.momentum is not None:
            exact = self._momentum_unit() / d * float((np.diag(self.buffers) / problem.mass).sum())
            found.append(mean_row(label, "log kinetic temperature", exact, heat[:, 1], log=True))
        whitened = np.linalg.solve(np.linalg.cholesky(self.positions), (last - self.case.target.mean).T)
        return found + distribution_rows(label, whitened.ravel())


def _square_root(covariance: Array) -> Array:
    """S with S S' = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root: Array = vectors * np.sqrt(np.clip(values, 0, None))
    return root
