"""Is the chain at its temperature: kinetic, configurational and excess temperature, and the band of the first.

In the symbols of the sampler: N data, step lr, friction 1 - beta (beta is the momentum), mass M, temperature T, target
exp(-U(w) / T). With the velocity u of one step (w <- w + u) the physical momentum is m = M u sqrt(N / lr).
"""

import math
from collections.abc import Callable

from scipy.special import chdtri  # not scipy.stats, whose import costs over a second

from sgmcmc_prune.diagnostics.batch_means import check_probability

#: c in E[m^2] = c T M at small steps, as a function of beta.
KINETIC_FACTORS: dict[str, Callable[[float], float]] = {
    "symplectic_euler": lambda beta: 2 / (1 + beta),
    "baoab": lambda beta: 1.0,
    "obabo": lambda beta: 1.0,
}


def kinetic_temperature(momentum_square_over_mass: float, dimension: int) -> float:
    r"""Kinetic temperature :math:`T_K = m^\top M^{-1} m / d = \frac{N}{d\,lr} \sum_j M_j u_j^2`.

    Both arguments add over parameters, so a layer and a whole network use the same line.

    Parameters
    ----------
    momentum_square_over_mass : float
        m' M^-1 m over the entries that are not masked.
    dimension : int
        d, the number of those entries.

    Returns
    -------
    float
        In units of the target's temperature; NaN when no entry is left.

    References
    ----------
    Wenzel et al. (2020), How good is the Bayes posterior in deep neural networks really?, ICML.
    """
    return momentum_square_over_mass / dimension if dimension > 0 else math.nan


def kinetic_band(
    temperature: float,
    dimension: int,
    momentum: float,
    probability: float = 0.99,
    integrator: str = "symplectic_euler",
) -> tuple[float, float]:
    r"""Interval that holds the kinetic temperature of one step with the given probability.

    At stationarity :math:`d\,T_K / (c\,T) \sim \chi^2_d`, so the band is
    :math:`[\chi^2_d(a/2), \chi^2_d(1 - a/2)]\, c\, T / d`. Symplectic Euler with noise of variance 2 (1 - beta) T
    has c = 2 / (1 + beta), which is close to one only as beta approaches one (1.82 at beta = .1); the splittings BAOAB
    and OBABO have c = 1.

    The band is exact for Gaussian momenta in the limit of small steps. At a finite step on a quadratic potential of one
    curvature, symplectic Euler heats momenta and positions alike: pass `temperature` times
    `symplectic_euler_variance_factor`. Minibatch noise heats too: add `excess_temperature`.

    Parameters
    ----------
    temperature : float
        T; at T = 0 the band is (0, 0).
    dimension : int
        d, the number of entries that are not masked.
    momentum : float
        beta in [0, 1).
    probability : float
        Between 0 and 1. A band checked many times is left often: widen it accordingly.
    integrator : {"symplectic_euler", "baoab", "obabo"}
        How positions and momenta are advanced.

    Returns
    -------
    tuple of float
        Lower and upper end; NaN when no entry is left.

    Raises
    ------
    ValueError
        An argument outside its range.

    References
    ----------
    Wenzel et al. (2020), How good is the Bayes posterior in deep neural networks really?, ICML (the band with c = 1).
    """
    _check_momentum(momentum)
    check_probability(probability)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; the kinetic band needs a finite one, zero or above")
    if integrator not in KINETIC_FACTORS:
        raise ValueError(f"integrator is {integrator!r}; choose one of {', '.join(KINETIC_FACTORS)}")
    if dimension < 1:
        return math.nan, math.nan
    tail = (1 - probability) / 2
    scale = KINETIC_FACTORS[integrator](momentum) * temperature / dimension
    # chdtri inverts the upper tail.
    return float(chdtri(dimension, 1 - tail)) * scale, float(chdtri(dimension, tail)) * scale


def configurational_temperature(dot: float, dimension: int) -> float:
    r"""Configurational temperature :math:`T_C = w^\top \nabla U(w) / d`, whose mean over draws is T.

    The gradient must be that of the whole data set, not of a minibatch that helped to make `w`. One value is noisy:
    judge the mean over draws, by `batch_means_interval`.

    Parameters
    ----------
    dot : float
        The inner product of w with the gradient of U = N * mean NLL - log prior, over the entries that are not masked.
    dimension : int
        d, the number of those entries.

    Returns
    -------
    float
        In units of the target's temperature; NaN when no entry is left.

    References
    ----------
    Wenzel et al. (2020), How good is the Bayes posterior in deep neural networks really?, ICML.
    """
    return dot / dimension if dimension > 0 else math.nan


def excess_temperature(num_data: int, lr: float, gradient_variance: float, momentum: float, mass: float) -> float:
    r"""Heat that minibatch noise adds to the target's temperature, :math:`\frac{N\,lr\,V_g}{2 (1 - \beta) M}`.

    Gradient noise adds lr^2 V_g / M^2 to the variance 2 (1 - beta) lr T / (N M) that symplectic Euler injects at each
    step. Other integrators whose step at T = 0 is SGD with the same lr and momentum (SGLD with momentum 0, BAOAB,
    OBABO) answer slow forces alike, and so their positions get the same heat as kappa = lr a / M goes to 0.
    Exact for noise that is independent between steps, which passing through shuffled epochs is not quite.

    Parameters
    ----------
    num_data : int
        N.
    lr : float
        Step size.
    gradient_variance : float
        V_g, the variance per coordinate of the gradient of a minibatch's mean negative log-likelihood.
    momentum : float
        beta in [0, 1).
    mass : float
        M, above zero.

    Returns
    -------
    float
        To be added to T.

    Raises
    ------
    ValueError
        An argument outside its range.
    """
    _check_momentum(momentum)
    if not mass > 0:
        raise ValueError(f"mass is {mass}; it must be above zero")
    if not (num_data >= 1 and lr >= 0 and gradient_variance >= 0):
        given = f"num_data {num_data}, lr {lr}, gradient_variance {gradient_variance}"
        raise ValueError(f"excess temperature needs num_data of 1 or more and the rest not negative, not {given}")
    return num_data * lr * gradient_variance / (2 * (1 - momentum) * mass)


def symplectic_euler_variance_factor(kappa: float, beta: float) -> float:
    r"""Heat of a finite step on a quadratic: N a Var(w) / T is :math:`1 / (1 - \frac{\kappa}{2 (1 + \beta)})`, not 1.

    For U = N a w^2 / 2 the chain of symplectic Euler,
    :math:`u \leftarrow \beta u - \frac{lr}{M} a w + \sqrt{2 (1 - \beta) lr\,T / (N M)}\,\xi`, then
    :math:`w \leftarrow w + u`, is linear, and this solves its Lyapunov equation. The variance of the physical momentum,
    divided by M, is 2 T / (1 + beta) times the same value.

    Parameters
    ----------
    kappa : float
        lr * a / M, with a the curvature of U / N; from 0 up to, not including, the stability limit 2 (1 + beta).
    beta : float
        Momentum in [0, 1).

    Returns
    -------
    float
        1 at kappa = 0, above 1 otherwise.

    Raises
    ------
    ValueError
        A momentum outside [0, 1), or a step at which the chain diverges.
    """
    _check_momentum(beta)
    limit = 2 * (1 + beta)
    if not 0 <= kappa < limit:
        raise ValueError(
            f"kappa = lr * curvature / mass is {kappa}; stable steps have 0 <= kappa < 2 (1 + beta) = {limit:g}"
        )
    return 1 / (1 - kappa / limit)


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
