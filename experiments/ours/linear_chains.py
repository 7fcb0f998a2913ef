"""Sample a spike-and-slab linear regression to Monte-Carlo precision: many replicate chains, on a ladder of spikes.

Replicates are the rows of one parameter tensor. Three things make them precise enough to be compared with enumeration:

- *Coordinates.* The sampler moves z with w = L z and L L' = (X'X / s^2 + I / v0)^-1, so that the stiffest direction of
  every model has curvature 1 and the step does not depend on the data.
- *A ladder of spikes.* With a narrow spike the models are separated modes. Rung k has the spike variance v_k between v0
  and half the slab; neighbours exchange their weights with the Metropolis probability of the two marginal priors, which
  leaves every rung's posterior as it is. Only the first rung is read. (In mode `em` there is one rung.)
- *BAOAB.* Its positions are exact on Gaussians at any stable step. Every `EVERY` steps the half kick that is still
  pending is made, weights are exchanged and indicators redrawn where position and momentum are independent, and the
  half kick is taken back at the new position: otherwise the exchange would heat the chain in first order of the step.

References
----------
Leimkuhler, Matthews: Rational construction of stochastic numerical methods for molecular sampling (AMRX 2013).
Geyer: Markov chain Monte Carlo maximum likelihood (Interface 1991), for the exchange of states between chains.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune.priors import Prior, SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.spike_slab import Mode
from sgmcmc_prune.samplers import BAOAB

EVERY = 5
BLOCK = 125
BURN_IN_BLOCKS = 10
MIN_BLOCKS = 20
#: Step times largest curvature, l a_max; BAOAB is stable under 2 (1 + beta).
STEP, MOMENTUM = 0.5, 0.9


@dataclass(frozen=True)
class Regression:
    """Data and known hyperparameters: x (n, p), y (n,), float64."""

    x: Tensor
    y: Tensor
    noise_variance: float
    spike_variance: float
    slab_variance: float
    inclusion_rate: float

    @property
    def hyperparameters(self) -> dict[str, float]:
        """pi, v0 and v1, as `SpikeSlab` and `enumerate_models` take them."""
        return {name: getattr(self, name) for name in ("inclusion_rate", "spike_variance", "slab_variance")}


class Sampled(NamedTuple):
    """Averages over replicates and draws, shape (p,) each, and the largest R-hat of the inclusion probabilities.

    `mcse` is that of the inclusion probabilities, from the spread of the replicates.
    """

    inclusion_probability: Tensor
    mean: Tensor
    variance: Tensor
    mcse: Tensor
    rhat: float


class LinearChange(Prior):
    """A prior on w = z L' (rows are replicates), seen from z: the chain rule. `roots` maps names to L."""

    def __init__(self, prior: Prior, roots: Mapping[str, Tensor]) -> None:
        self.prior, self.roots = prior, roots

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w(z)), without the constant log |L|."""
        return self.prior.log_density({name: z @ self.roots[name].T for name, z in params.items()})

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """L' (-d log p / dw) at w = z L'."""
        root = self.roots[name]
        return self.prior.potential_gradient(name, w @ root.T) @ root


class Ladder:
    """All chains of one regression at one step size.

    Parameters
    ----------
    problem : Regression
    mode : {"marginal", "gibbs", "em"}
    replicates : int
        Independent chains, R.
    step : float
        l a_max, against a largest curvature a_max = 1 of U in the coordinates z.
    seed, chain : int
        Key of all noise.
    """

    def __init__(
        self,
        problem: Regression,
        mode: Mode,
        *,
        replicates: int = 512,
        step: float = STEP,
        seed: int = 0,
        chain: int = 0,
    ) -> None:
        self.problem, self.mode, self.replicates = problem, mode, replicates
        x, y, s2 = problem.x, problem.y, problem.noise_variance
        self.gram, self.score = x.T @ x / s2, x.T @ y / s2
        self.generator = torch.Generator().manual_seed(2 * seed + chain)
        spikes = spike_ladder(problem) if mode != "em" else [problem.spike_variance]
        self.names = [str(k) for k in range(len(spikes))]
        roots = {name: self._root(spike) for name, spike in zip(self.names, spikes, strict=True)}
        self.roots = roots
        self.z = {name: nn.Parameter(self._start(root)) for name, root in roots.items()}
        self.prior = SpikeSlab(self.z, mode=mode, seed=seed, chain=chain, **problem.hyperparameters)
        for name, spike in zip(self.names, spikes, strict=True):
            self.prior.layers[name].spike_variance = spike
        self.num_data = len(y)
        self.sampler = BAOAB(
            self.z.items(),
            lr=step * self.num_data,
            momentum=MOMENTUM,
            num_data=self.num_data,
            prior=LinearChange(self.prior, roots),
            seed=seed,
            chain=chain,
        )
        self.em = EM(EMSettings("fixed"), self.prior)
        self.steps = 0

    def _root(self, spike: float) -> Tensor:
        """L of one rung."""
        return torch.linalg.cholesky(
            torch.linalg.inv(self.gram + torch.eye(len(self.gram), dtype=torch.float64) / spike)
        )

    def _start(self, root: Tensor) -> Tensor:
        """Dispersed: draws from the slab."""
        shape = (self.replicates, len(self.gram))
        w = math.sqrt(self.problem.slab_variance) * torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return torch.linalg.solve_triangular(root, w.T, upper=False).T.contiguous()

    def weights(self) -> dict[str, Tensor]:
        """w = z L' of every rung."""
        return {name: z.detach() @ self.roots[name].T for name, z in self.z.items()}

    @torch.no_grad()
    def run_block(self, burn_in: bool) -> Tensor:
        """Advance by one block: mean of p(gamma = 1 | w), w and w^2 of each replicate, shape (3, R, p)."""
        rows = []
        for _ in range(BLOCK // EVERY):
            for _ in range(EVERY):
                self._set_gradients()
                self.sampler.step()
            self.steps += EVERY
            self._update_discrete(burn_in)
            w = self.z["0"] @ self.roots["0"].T
            rows.append(torch.stack([self.prior.log_odds("0", w).sigmoid().view_as(w), w, w.square()]))
        return torch.stack(rows).mean(0)

    def _set_gradients(self) -> None:
        """d/dz of the mean negative log-likelihood, (w G - b) L / N."""
        for name, w in self.weights().items():
            self.z[name].grad = (w @ self.gram - self.score) @ self.roots[name] / self.num_data

    def _half_kick(self, sign: float) -> None:
        self._set_gradients()
        for name, p, state, group in self.sampler.named_states():
            state["momentum_buffer"].add_(self.sampler.force(name, p, group["num_data"]), alpha=sign / 2)

    def _update_discrete(self, burn_in: bool) -> None:
        """Exchange weights between rungs, redraw indicators or re-hold responsibilities."""
        self._half_kick(1)
        first = (self.steps // EVERY) % 2
        for lower, upper in list(zip(self.names, self.names[1:], strict=False))[first::2]:
            self._exchange(lower, upper)
        self.prior.sample_latent(self.weights(), self.steps)
        if self.mode == "em" and burn_in:
            self.em.update(self.weights(), 1.0)
        self._half_kick(-1)

    def _exchange(self, lower: str, upper: str) -> None:
        """Metropolis step for exchanging two rungs' weights, replicate by replicate."""
        a, b = (self.z[name] @ self.roots[name].T for name in (lower, upper))
        ratio = self._log_prior(lower, b) + self._log_prior(upper, a) - self._log_prior(lower, a)
        ratio -= self._log_prior(upper, b)
        uniform = torch.rand(self.replicates, generator=self.generator, dtype=torch.float64)
        change = (b - a) * (uniform.log() < ratio).unsqueeze(1)
        for name, sign in ((lower, 1), (upper, -1)):
            self.z[name].add_(torch.linalg.solve_triangular(self.roots[name], change.T, upper=False).T, alpha=sign)

    def _log_prior(self, name: str, w: Tensor) -> Tensor:
        """Marginal log prior of each replicate, up to the slab's share, which all rungs have in common: shape (R,)."""
        return F.softplus(-self.prior.log_odds(name, w)).view_as(w).sum(1)


def spike_ladder(problem: Regression) -> list[float]:
    """Spike variances from v0 to half the slab, evenly in the logarithm, close enough for exchanges among p weights."""
    ratio = max(1.0, problem.slab_variance / (2 * problem.spike_variance))
    rungs = 1 + math.ceil(math.log(ratio) * math.sqrt(problem.x.shape[1]) / 6)
    return [problem.spike_variance * ratio ** (k / max(rungs - 1, 1)) for k in range(rungs)]


def sample(ladder: Ladder, target_mcse: float, cpu_seconds: float) -> Sampled:
    """Run blocks until the largest standard error is under the target, or the processor time is up.

    The burn-in, or the first third of the run if that is longer, is left out of all averages.
    """
    started, blocks = time.process_time(), []
    for _ in range(BURN_IN_BLOCKS):
        blocks.append(ladder.run_block(burn_in=True))
    while True:
        blocks.append(ladder.run_block(burn_in=False))
        if len(blocks) < MIN_BLOCKS:
            continue
        result = summarise(torch.stack(blocks[max(BURN_IN_BLOCKS, len(blocks) // 3) :]))
        if float(result.mcse.max()) < target_mcse or time.process_time() - started > cpu_seconds:
            return result


def summarise(blocks: Tensor) -> Sampled:
    """Averages of block means, shape (blocks, 3, R, p); R-hat compares replicates by their block means."""
    by_replicate = blocks.mean(0)
    inclusion, mean, square = by_replicate.mean(1)
    spread = by_replicate[0].var(0)
    within = blocks[:, 0].var(0).mean(0)
    settled = spread < 1e-12  # an inclusion probability that no chain moves away from 0 or 1
    rhat = torch.where(settled, 1.0, ((len(blocks) - 1) / len(blocks) + spread / within).sqrt())
    return Sampled(inclusion, mean, square - mean.square(), (spread / by_replicate.shape[1]).sqrt(), float(rhat.max()))
