r"""Exact laws of linear samplers: the equations of one step, read as linear maps, and their Lyapunov equation.

On a quadratic potential, force = A w + zeta with gradient noise zeta ~ N(0, V_g I), a step maps the state (w, b) and
the noise (xi, zeta) linearly to the next state. A linear form of these four vectors is a matrix of shape (d, 4 d), so
the published equations can be written down as they stand, with matrices for letters, and the transition F and the
noise covariance Q of

    s' = F s + G (xi, zeta),        Q = G diag(I, V_g I) G'

are read off. The stationary covariance solves Sigma = F Sigma F' + Q: the step-size bias is in it. Nothing here looks
at the samplers' code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """The potential U / N = w' A w / 2 and the constants of a sampler on it.

    Parameters
    ----------
    curvature : Array, shape (d, d)
        A, the prior's share included.
    lr, momentum, temperature : float
        l, beta and T.
    num_data : int
        N.
    mass : Array, shape (d,)
        Diagonal of M.
    gradient_variance : float
        V_g, per coordinate, of the minibatch gradient.
    """

    curvature: Array
    lr: float
    num_data: int
    mass: Array
    momentum: float = 0.0
    temperature: float = 1.0
    gradient_variance: float = 0.0

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.curvature)


class Forms(NamedTuple):
    """The start of a step: w, b and xi as linear forms, and the force at a linear form."""

    w: Array
    b: Array
    xi: Array
    force: Callable[[Array], Array]


def _forms(problem: Quadratic) -> Forms:
    d = problem.dimension
    w, b, xi, zeta = np.split(np.eye(4 * d), 4)
    return Forms(w, b, xi, lambda x: problem.curvature @ x + zeta)


Step = Callable[[Quadratic], tuple[Array, Array]]


def sgld(p: Quadratic) -> tuple[Array, Array]:
    r"""w <- w - l M^-1 force + sqrt(2 l T / N) M^-1/2 xi (Welling and Teh 2011, eq. 4; Euler and Maruyama)."""
    w, b, xi, force = _forms(p)
    mass = p.mass[:, None]
    w = w - p.lr * force(w) / mass + math.sqrt(2 * p.lr * p.temperature / p.num_data) * xi / np.sqrt(mass)
    return w, 0 * b  # it has no momentum


def sghmc(p: Quadratic) -> tuple[Array, Array]:
    r"""b <- beta b + force - sqrt(2 (1 - beta) T / (N l)) M^1/2 xi;  w <- w - l M^-1 b (Chen et al. 2014, eq. 15)."""
    w, b, xi, force = _forms(p)
    mass, beta = p.mass[:, None], p.momentum
    b = beta * b + force(w) - math.sqrt(2 * (1 - beta) * p.temperature / (p.num_data * p.lr)) * np.sqrt(mass) * xi
    return w - p.lr * b / mass, b


def baoab(p: Quadratic) -> tuple[Array, Array]:
    r"""b <- b + force;  half a drift;  b <- beta b - sqrt(T (1 - beta^2)) / (N h) M^1/2 xi;  half a drift.

    With h^2 = 2 l / (N (1 + beta)) a half drift is w <- w - N h^2 / 2 M^-1 b (Leimkuhler and Matthews 2013).
    """
    w, b, xi, force = _forms(p)
    half = p.lr / (1 + p.momentum) / p.mass[:, None]
    b = b + force(w)
    w = w - half * b
    b = p.momentum * b - _refreshment(p) * xi
    return w - half * b, b


def obabo(p: Quadratic) -> tuple[Array, Array]:
    r"""Half a kick, b <- beta b - sqrt(T (1 - beta^2)) / (N h) M^1/2 xi, half a kick, a drift w <- w - N h^2 M^-1 b.

    Both half kicks see one minibatch (Bussi and Parrinello 2007, begun at the first half kick).
    """
    w, b, xi, force = _forms(p)
    kick = force(w) / 2
    b = p.momentum * (b + kick) - _refreshment(p) * xi + kick
    return w - p.num_data * time_step(p) ** 2 * b / p.mass[:, None], b


def time_step(p: Quadratic) -> float:
    r"""h of the splitting schemes, h^2 = 2 l / (N (1 + beta)); the physical momentum is m = -N h b."""
    return math.sqrt(2 * p.lr / (p.num_data * (1 + p.momentum)))


def _refreshment(p: Quadratic) -> Array:
    strength = math.sqrt(p.temperature * (1 - p.momentum**2)) / (p.num_data * time_step(p))
    return strength * np.sqrt(p.mass)[:, None]


class Law(NamedTuple):
    """Stationary covariance of the state (w, b), and the steps in which a start is forgotten to one in a thousand."""

    covariance: Array
    relaxation: int


def stationary(problem: Quadratic, step: Step) -> Law:
    r"""Solve Sigma = F Sigma F' + Q by doubling: Sigma_2k = Sigma_k + F^k Sigma_k F^k'.

    Parameters
    ----------
    problem : Quadratic
    step : callable
        `sgld`, `sghmc`, `baoab` or `obabo`.

    Returns
    -------
    Law
        Covariance of shape (2 d, 2 d), to machine precision.

    Raises
    ------
    ValueError
        If the step is too long for the potential: the chain has no stationary law.
    """
    d = problem.dimension
    maps = np.vstack(step(problem))
    power, noise = maps[:, : 2 * d], maps[:, 2 * d :]
    covariance = (noise * np.repeat([1.0, problem.gradient_variance], d)) @ noise.T
    steps = 1
    while (size := float(np.abs(power).max())) > 1e-13:
        if size > 1e9 or steps > 2**40:
            raise ValueError(f"lr {problem.lr} is too long for this curvature: the chain has no stationary law")
        covariance = covariance + power @ covariance @ power.T
        power, steps = power @ power, 2 * steps
    # |F^k| behaves as rho^k (Gelfand), rho being the spectral radius.
    relaxation = math.ceil(steps * math.log(1e-3) / math.log(max(size, 1e-300)))
    return Law((covariance + covariance.T) / 2, relaxation)
