r"""Spike-and-slab inference over a layer's mask, with the reduced free energies as its data.

    z_i ~ Bernoulli(pi) (1 = keep),  pi ~ Beta(alpha, beta),  log p(D | z) = const + sum_i (1 - z_i) delta F_i.

Mean-field coordinate ascent over q(z) q(pi) repeats

    zeta = E[logit pi] = digamma(alpha + sum q) - digamma(beta + sum (1 - q)),    q_i = sigmoid(zeta - delta F_i).

The update feeds on itself: a large layer whose weights all have delta F = d moves zeta by -d in every iteration, so a
bulk at +0.3 ends with all of it pruned and one at -0.3 with nothing. There is no convergence to wait for; the number of
iterations is part of the method, and the authors' is 4, from zeta = 0.

References
----------
Markovic, Friston, Kiebel: Bayesian sparsification for deep neural networks with Bayesian model reduction (arXiv
2309.12095).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Inclusion(NamedTuple):
    """Log odds of inclusion zeta - delta F, shaped like delta F, and zeta (0-d): a prior log odds that was learned."""

    log_odds: Tensor
    zeta: Tensor


def infer_inclusion(
    delta_f: Tensor, kept: Tensor, *, alpha: float = 1.0, beta: float = 1.0, iterations: int = 4
) -> Inclusion:
    """Infer which weights of one layer to keep: those with log odds >= 0.

    Parameters
    ----------
    delta_f : Tensor
        Change of log evidence when the weight is removed.
    kept : bool Tensor, shaped like `delta_f`
        Weights that were pruned before are left out of the inclusion rate.
    alpha, beta : float
        The Beta prior on the layer's inclusion rate.
    iterations : int
        Coordinate-ascent steps; 0 leaves zeta at its prior value, digamma(alpha) - digamma(beta).

    Returns
    -------
    Inclusion
        float64.

    Raises
    ------
    ValueError
        If the Beta prior is not proper, or a delta F is NaN.
    """
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"the Beta prior on the inclusion rate is ({alpha}, {beta}); both must be > 0")
    if bool(delta_f.isnan().any()):
        raise ValueError("delta F holds NaN; check the posterior means and variances")
    delta_f = delta_f.double()
    alive = delta_f[kept]
    a, b = delta_f.new_tensor(alpha), delta_f.new_tensor(beta)
    zeta = a.digamma() - b.digamma()
    for _ in range(iterations):
        q = torch.sigmoid(zeta - alive)
        zeta = (a + q.sum()).digamma() - (b + (1 - q).sum()).digamma()
    return Inclusion(zeta - delta_f, zeta)
