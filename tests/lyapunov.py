"""Exact laws of linear samplers: the linear map of one step, read off the code and written down from the equations.

On a quadratic potential U / N = w' A w / 2 one step maps the state (w, b) and the noise xi linearly to the next state,
s' = F s + G xi, and the stationary covariance, step-size bias included, solves Sigma = F Sigma F' + G G'. `measure`
finds F and G from the code, `Problem.recursion` has them from the published equations: comparing them needs no
statistics.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import chi2, norm
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.noise import standard_normal
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.samplers import MomentumSampler, Sampler

Array = NDArray[np.float64]
FALSE_ALARM = 1e-3


def random_curvature(seed: int, d: int = 3) -> Array:
    """A correlated positive definite matrix with eigenvalues 1, 3, 6 for d = 3."""
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return q @ np.diag(np.linspace(1, 2, d) * np.linspace(1, d, d)) @ q.T


def random_mass(seed: int, d: int = 3) -> Array:
    """Masses above one, as the learned diagonal has them."""
    return np.random.default_rng(seed).uniform(1.1, 4.0, d)


@dataclass(frozen=True)
class Problem:
    """The target exp(-N w' A w / (2 T)) and the settings of a sampler for it.

    `thermostat` is the fixed z of sgnht; `released` has the mass 1 / tau.
    """

    kind: str
    curvature: Array
    lr: float
    momentum: float = 0.0
    mass: Array | None = None
    temperature: float = 1.0
    num_data: int = 50
    seed: int = 0
    thermostat: float = 0.0

    @property
    def dimension(self) -> int:
        return len(self.curvature)

    @property
    def masses(self) -> Array:
        return np.ones(self.dimension) if self.mass is None else self.mass

    @property
    def has_momentum(self) -> bool:
        return self.kind != "sgld"

    @property
    def unit(self) -> float:
        """(m / b)^2 of the physical momentum m."""
        if self.kind in ("sghmc", "adaptive_sghmc"):
            return self.num_data * self.lr
        if self.kind == "released":
            return self.num_data / self.lr
        return 2 * self.num_data * self.lr / (1 + self.momentum)

    def recursion(self) -> tuple[Array, Array]:
        """F and G of the state: w for sgld, (w, b) for the others."""
        d, lr, beta = self.dimension, self.lr, self.momentum
        one, inverse, root = np.eye(d), np.diag(1 / self.masses), np.diag(np.sqrt(self.masses))
        if self.kind == "sgld":
            scale = math.sqrt(2 * lr * self.temperature / self.num_data)
            return one - lr * inverse @ self.curvature, scale * np.linalg.inv(root)

        def block(ww: Array, wb: Array, bw: Array, bb: Array) -> Array:
            return np.block([[ww, wb], [bw, bb]])

        def kick(share: float) -> Array:
            return block(one, 0 * one, share * self.curvature, one)

        def drift(length: float) -> Array:
            return block(one, -length * inverse, 0 * one, one)

        def decay(c: float) -> Array:
            return block(one, 0 * one, 0 * one, c * one)

        enters = np.vstack([0 * one, -root])
        half = lr / (1 + beta)
        refresh = math.sqrt(self.temperature * (1 - beta**2) / self.unit)
        if self.kind in ("sghmc", "adaptive_sghmc"):
            noise = math.sqrt(2 * (1 - beta) * self.temperature / (self.num_data * lr))
            return drift(lr) @ kick(1) @ decay(beta), noise * drift(lr) @ enters
        if self.kind == "released":  # the buffer is m: kicked by -l, drifting by +tau m, its noise without M^(1/2)
            noise = math.sqrt((2 + 2 * beta**2) * self.temperature / self.num_data) * lr**0.75
            return drift(-1) @ kick(-lr) @ decay(beta), noise * drift(-1) @ np.vstack([0 * one, one])
        if self.kind == "obabo":
            return drift(2 * half) @ kick(0.5) @ decay(beta) @ kick(0.5), refresh * drift(2 * half) @ enters
        decayed = decay(beta * math.exp(-self.thermostat))
        return drift(half) @ decayed @ drift(half) @ kick(1), refresh * drift(half) @ enters

    def covariance(self, gradient_variance: float = 0.0) -> Array:
        """Exact stationary covariance of the state, step-size bias included."""
        transition, noise = self.recursion()
        covariance = noise @ noise.T
        if gradient_variance > 0:
            response = self.gradient_response()
            covariance = covariance + gradient_variance * response @ response.T
        return solve_discrete_lyapunov(transition, covariance)

    def gradient_response(self) -> Array:
        """How a gradient moves the state within its step: F at (w, b) is F at zero force plus response times A w."""
        transition = self.recursion()[0]
        free = Problem(**{**vars(self), "curvature": 0 * self.curvature}).recursion()[0]
        return (transition - free)[:, : self.dimension] @ np.linalg.inv(self.curvature)

    def kinetic_temperature(self, gradient_variance: float = 0.0) -> float:
        """Mean of m' M^-1 m / d between steps."""
        momenta = np.diag(self.covariance(gradient_variance))[self.dimension :]
        return self.unit * float((momenta / self.masses).mean())

    def sampler(self, replicates: int) -> tuple[Sampler, Tensor]:
        """A sampler at w = 0, whose one parameter has a row for every replicate; mass and thermostat are frozen."""
        w = nn.Parameter(torch.zeros(replicates, self.dimension, dtype=torch.float64))
        settings: dict[str, Any] = {"lr": self.lr, "num_data": self.num_data, "temperature": self.temperature}
        settings |= {"seed": self.seed, "momentum": self.momentum} if self.has_momentum else {"seed": self.seed}
        learned = self.kind in ("adaptive_sghmc", "released")
        if self.kind == "released":
            settings |= {"form": "released"}
        if self.kind == "sgnht":
            settings |= {"rate": 1e-300}
        if self.mass is not None and not learned:
            settings |= {"preconditioner": RMSprop()}
        sampler = choices.load("sampler", "adaptive_sghmc" if learned else self.kind)([w], **settings)
        if self.kind == "sgnht":
            fixed = torch.tensor(self.thermostat, dtype=torch.float64)
            sampler.state[w] |= {"thermostat": fixed, "thermostat_lr": self.lr}
        if self.mass is not None:
            mass = torch.from_numpy(self.mass).expand_as(w)
            sampler.state[w]["mass"] = mass
            if learned:
                sampler.state[w]["rho"] = -(mass - 1).log()
        sampler.freeze()
        return sampler, w

    def place(self, sampler: Sampler, w: Tensor, states: Array) -> None:
        """Put the replicates at states, shape (R, d) or (R, 2 d)."""
        rows = torch.from_numpy(states)
        with torch.no_grad():
            w.copy_(rows[:, : self.dimension])
        if self.has_momentum:
            group = sampler.param_groups[0]
            assert isinstance(sampler, MomentumSampler)
            sampler.state[w]["momentum_buffer"] = rows[:, self.dimension :].clone()
            sampler.state[w]["time_step"] = sampler.time_step(group)

    def advance(self, sampler: Sampler, w: Tensor, steps: int, gradient_variance: float = 0.0) -> None:
        """Take steps with the exact mean gradient, plus independent noise of the given variance."""
        curvature = torch.from_numpy(self.curvature)
        generator = torch.Generator().manual_seed(self.seed + 1)
        for _ in range(steps):
            w.grad = w.detach() @ curvature
            if gradient_variance > 0:
                w.grad += math.sqrt(gradient_variance) * torch.randn(w.shape, generator=generator, dtype=w.dtype)
            sampler.step()

    def state(self, sampler: Sampler, w: Tensor) -> Array:
        """The replicates' states, one a row."""
        parts = [w.detach()] + ([sampler.state[w]["momentum_buffer"]] if self.has_momentum else [])
        return torch.cat(parts, dim=1).numpy()

    def measure(self) -> tuple[Array, Array]:
        """F and G of the code: one cold step from the unit vectors, one warm step from zero with known noise."""
        size = 2 * self.dimension if self.has_momentum else self.dimension
        sampler, w = self.sampler(size)
        sampler.configure(temperature=0.0)
        self.place(sampler, w, np.eye(size))
        self.advance(sampler, w, 1)
        transition = self.state(sampler, w).T
        sampler, w = self.sampler(4 * size)
        self.place(sampler, w, np.zeros((4 * size, size)))
        self.advance(sampler, w, 1)
        xi = standard_normal(self.seed, 0, 0, 0, w.numel()).double().view_as(w).numpy()
        answer, residual, _, _ = np.linalg.lstsq(xi, self.state(sampler, w), rcond=None)
        assert residual.max() < 1e-20  # linear in xi and nothing else
        return transition, answer.T


def assert_covariance(states: Array, expected: Array) -> None:
    """z-scores of all second moments about zero, two-sided with Bonferroni at `FALSE_ALARM` in all."""
    n = len(states)
    variances = np.diag(expected)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
    z = ((states.T @ states / n - expected) / error)[np.tril_indices(len(expected))]
    assert np.abs(z).max() < norm.isf(FALSE_ALARM / 2 / len(z)), z


def assert_variance(x: Array, expected: float) -> None:
    """Exact chi-square test of the variance of independent zero-mean normals, two-sided at `FALSE_ALARM`."""
    total = float((x**2).sum()) / expected
    assert chi2.ppf(FALSE_ALARM / 2, x.size) < total < chi2.isf(FALSE_ALARM / 2, x.size), total / x.size
