r"""Bayesian model reduction on the draws of a Markov chain: marginal means and variances in place of variational ones.

For a Gaussian posterior the Savage-Dickey ratio of one weight needs exactly the marginal variance that draws estimate
(a mean-field q has the smaller conditional one). From m and v of S draws under the prior N(0, a),

    delta F = 1/2 log(a / v) - m^2 / (2 v).

*The chain must have run under the plain Gaussian prior.* A mixture or horseshoe prior has already shrunk the weights,
and the formula would count its evidence twice; there the inclusion probability is itself the reduction: with the
mixture p = (1 - pi) N(0, v0) + pi N(0, v1) as the full prior and its spike as the reduced one,

    exp(delta F) = E[ N(w; 0, v0) / p(w) | D ] = P(z = 0 | D) / (1 - pi).

A finite chain errs in three ways that are corrected or reported here: autocorrelation deflates v by about
(S - tau) / (S - 1); few draws make v itself uncertain; modes that mix, or a sampler that runs hot, inflate v.

Weights permute between chains: a reduction belongs to one chain, and to one cycle of a cyclical one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.bmr.spike_slab import infer_inclusion
from sgmcmc_prune.priors import Gaussian, Prior
from sgmcmc_prune.pruning.masks import Mask, prunable

Correction = Literal["student-t", "unbiased", "none"]

#: Variances are not taken below (this times the prior's standard deviation) squared.
SMALLEST_DEVIATION = 1e-4
#: Chance that sampling noise alone takes one of a parameter's variances over the limit, if all are the prior's.
FALSE_ALARM = 1e-3


def delta_f_of_draws(
    mean: Tensor, variance: Tensor, draws: float, prior_variance: float, correction: Correction = "student-t"
) -> Tensor:
    r"""Estimate the spike's delta F of each weight from the moments of its draws.

    With n = S - 1 degrees of freedom,

    - "none": the plug-in :math:`\tfrac12 \log (a / v) - m^2 / (2 v)`;
    - "unbiased": :math:`\tfrac12 [\log (a / v) + \psi(n / 2) - \log (n / 2)] - \tfrac12 [\frac{S - 3}{n} \frac{m^2}{v}
      - \frac1S]`, whose mean over independent Gaussian draws is the delta F of the true moments;
    - "student-t": the predictive ordinate :math:`\log t_n(0; m, v (1 + 1 / S)) - \log N(0; 0, a)`.

    Neither correction dominates: they trade missed prunes for false ones. From 100 effective draws on they hardly
    matter.

    Parameters
    ----------
    mean, variance : Tensor
        Sample mean and unbiased sample variance.
    draws : float
        S, the effective number of draws, above 3.
    prior_variance : float
        a.
    correction : {"student-t", "unbiased", "none"}

    Returns
    -------
    Tensor, float64, shaped like `mean`

    Raises
    ------
    ValueError
        If there are too few draws, a variance is not positive, or the correction is unknown.
    """
    if not draws > 3:
        raise ValueError(f"{draws:.3g} effective draws are too few for a variance; a reduction needs more than 3")
    m, v = mean.double(), variance.double()
    if not (bool((v > 0).all()) and prior_variance > 0):
        raise ValueError("variances of draws and prior must be > 0; floor the variances of weights that did not move")
    n = torch.tensor(draws - 1, dtype=torch.float64, device=v.device)
    log_ratio, square = (prior_variance / v).log(), m.square() / v
    if correction == "none":
        return (log_ratio - square) / 2
    if correction == "unbiased":
        bias = (n / 2).digamma() - (n / 2).log()
        return (log_ratio + bias - (draws - 3) / n * square + 1 / draws) / 2
    if correction != "student-t":
        raise ValueError(f"correction is {correction!r}; choose 'student-t', 'unbiased' or 'none'")
    scale = v * (1 + 1 / draws)
    t = ((n + 1) / 2).lgamma() - (n / 2).lgamma() - (n * math.pi * scale).log() / 2
    t = t - (n + 1) / 2 * (m.square() / (n * scale)).log1p()
    return t + math.log(2 * math.pi * prior_variance) / 2


def integrated_autocorrelation_time(draws: Tensor) -> float:
    r"""Integrated autocorrelation time :math:`\tau = 1 + 2 \sum_t \rho_t` of the weights of one parameter together.

    The autocovariances are summed over weights before they are divided, as single weights are too noisy. Around the
    sample mean they are too small by :math:`\tau / S` (in units of the variance) at every lag: with the raw
    autocorrelations r summed to R over a window of W lags that gives

    .. math:: \tau = \frac{1 + 2 R}{1 - 2 (W - R) / S}.

    The window is the first with :math:`W \ge 5 \tau`, or half the chain.

    Parameters
    ----------
    draws : Tensor, shape (S, ...)

    Returns
    -------
    float
        At least 1.

    References
    ----------
    Sokal (1997), Monte Carlo methods in statistical mechanics: foundations and new algorithms.
    """
    x = draws.detach().flatten(1).double()
    x = x - x.mean(0)
    count, variance = len(x), x.square().sum() / len(x)
    if not bool(variance > 0):
        return 1.0
    tau, total = 1.0, 0.0
    for lag in range(1, count // 2):
        total += float((x[:-lag] * x[lag:]).sum() / (count - lag) / variance)
        tau = (1 + 2 * total) / (1 - 2 * (lag - total) / count)
        if lag >= 5 * tau:
            break
    return max(tau, 1.0)


class ChainReduction:
    """Bayesian model reduction on one chain.

    Parameters
    ----------
    model : nn.Module
    draws : sequence of mapping of str to Tensor
        Weight draws of one chain (one cycle of a cyclical one), by parameter name.
    prior : Prior
        The prior that the chain ran under: a `Gaussian`.
    temperature : float
        Of the chain. At T the prior that the draws saw is N(0, T a).
    correction : {"student-t", "unbiased", "none"}
    margin : float
        Prune only with log odds of inclusion below minus this: weights whose posterior is their prior have delta F = 0
        up to Monte-Carlo noise, and half of them would go at random.
    excess_variance : {"refuse", "zero"}
        What to do with variances above the prior's by more than sampling noise: refuse, or set delta F to 0 for them.
    allow_empty : bool
        Let a layer lose all its weights.

    Attributes
    ----------
    delta_f, log_odds : dict of str to Tensor, shaped like the prunable parameters
    scores : dict of str to Tensor, shape (G,), float64
        Log odds of inclusion of each weight: higher = keep.
    mask : mask
        What has log odds of at least minus the margin.
    excess : dict of str to float
        Fraction of each parameter's variances above the prior's.
    effective_draws : dict of str to float

    Raises
    ------
    TypeError
        If the prior is not Gaussian.
    ValueError
        If there are too few draws, variances exceed the prior's, or a layer would be empty.
    """

    def __init__(
        self,
        model: nn.Module,
        draws: Sequence[Mapping[str, Tensor]],
        prior: Prior,
        *,
        temperature: float = 1.0,
        correction: Correction = "student-t",
        margin: float = 0.0,
        excess_variance: Literal["refuse", "zero"] = "refuse",
        allow_empty: bool = False,
    ) -> None:
        if not isinstance(prior, Gaussian):
            raise TypeError(
                f"the chain ran under {type(prior).__name__}, which has shrunk the weights already: its evidence would "
                "count twice. Give draws under the plain Gaussian prior, or use that chain's inclusion probabilities"
            )
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; draws without noise have no posterior variance")
        self.draws, self.correction, self.prior_variance = draws, correction, temperature * prior.variance
        self.delta_f: dict[str, Tensor] = {}
        self.log_odds: dict[str, Tensor] = {}
        self.excess: dict[str, float] = {}
        self.effective_draws: dict[str, float] = {}
        for name in prunable(model):
            self._reduce(name, excess_variance == "zero")
        self.scores = {name: odds.flatten() for name, odds in self.log_odds.items()}
        self.mask: Mask = {name: odds >= -margin for name, odds in self.log_odds.items()}
        for name, kept in self.mask.items():
            if not allow_empty and not bool(kept.any()):
                raise ValueError(f"the reduction removes all weights of {name!r}; pass allow_empty=True to accept it")

    def _reduce(self, name: str, zero_excess: bool) -> None:
        """Fill in the reduction of one parameter."""
        mean, variance, draws = corrected_moments(torch.stack([draw[name] for draw in self.draws]))
        a = self.prior_variance
        too_wide = variance > a * largest_ratio(draws, variance.numel())
        if bool(too_wide.any()) and not zero_excess:
            raise ValueError(
                f"{name!r}: {int(too_wide.sum())} of {variance.numel()} variances are larger than the prior's {a:.3g} "
                f"(up to {float(variance.max()):.3g}): the chain mixes modes, runs hot, or had another prior. Pass "
                "excess_variance='zero' to keep such weights out of the decision"
            )
        floored = variance.clamp_min(SMALLEST_DEVIATION**2 * a)
        delta_f = delta_f_of_draws(mean, floored, draws, a, self.correction)
        self.delta_f[name] = torch.where(too_wide, 0, delta_f)
        self.log_odds[name] = infer_inclusion(self.delta_f[name], ~too_wide).log_odds
        self.excess[name] = float((variance > a).double().mean())
        self.effective_draws[name] = draws


def largest_ratio(draws: float, count: int) -> float:
    """Largest ratio of sample variance to variance that `count` samples of independent draws reach by chance."""
    from scipy.special import chdtri  # not at the top: baselines import with torch alone

    return float(chdtri(draws - 1, FALSE_ALARM / count)) / (draws - 1)


def corrected_moments(draws: Tensor) -> tuple[Tensor, Tensor, float]:
    r"""Mean, variance and effective number of draws, corrected for autocorrelation.

    With the autocorrelation time :math:`\tau` the unbiased sample variance is divided by its expected deflation
    :math:`(S - \tau) / (S - 1)`, and :math:`S_\mathrm{eff} = S / \tau`.

    Parameters
    ----------
    draws : Tensor, shape (S, ...)

    Returns
    -------
    mean, variance : Tensor, float64
    effective_draws : float

    Raises
    ------
    ValueError
        If fewer than four draws are effective.
    """
    count, tau = len(draws), integrated_autocorrelation_time(draws)
    if count / tau < 4:
        raise ValueError(
            f"{count} draws with an autocorrelation time of {tau:.3g} count as {count / tau:.2g}; a reduction needs at "
            "least 4, and 100 to be precise"
        )
    x = draws.double()
    return x.mean(0), x.var(0) * (count - 1) / (count - tau), count / tau
