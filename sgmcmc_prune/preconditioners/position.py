"""A mass matrix that is a function of the position, with the correction that keeps the target."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sgmcmc_prune.preconditioners.base import Preconditioner
from sgmcmc_prune.settings import check_number, require

PositionFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PositionDependent(Preconditioner):
    r"""M(w), diagonal, and Gamma(w) with Gamma_i = sum_j d(M^-1)_ij / dw_j = d(1 / M_i) / dw_i; for `SGLD` alone.

    The Langevin diffusion with M(w) has the target exp(-U / T) only with the drift T Gamma. Leaving Gamma out samples
    something else: in one dimension a density proportional to M(w) exp(-U(w) / T).

    Parameters
    ----------
    mass : callable
        From a parameter to its M, of a shape that broadcasts against it, above zero.
    gamma : callable
        From a parameter to Gamma, shaped like it. Nothing checks that it is the derivative of 1 / `mass`.
    min_mass : float
        A lower bound of M, if there is one.

    Notes
    -----
    The moving average of RMSprop is no function of the position, and there is no Gamma for it here. What is often
    written down differentiates M through the newest gradient alone, is of order 1 - decay, and is dropped as small. But
    where the position hardly moves within the average's memory of 1 / (1 - decay) steps, the average follows
    E[g^2 | w]: M is then a function of the position after all, its derivative that of the whole expectation, and that
    needs the diagonal of the Hessian at every step. Freezing M costs nothing and is exact, so that is what `RMSprop`
    and `Layerwise` do.

    References
    ----------
    Ma, Chen, Fox: A complete recipe for stochastic gradient MCMC (NeurIPS 2015).
    Li, Chen, Carlson, Carin: Preconditioned stochastic gradient Langevin dynamics for deep neural networks (AAAI 2016).
    """

    mass: PositionFunction
    gamma: PositionFunction
    min_mass: float = 0.0

    def __post_init__(self) -> None:
        check_number("min_mass", self.min_mass)
        require(0 <= self.min_mass < math.inf, f"min_mass is {self.min_mass}; it must be finite and >= 0")
