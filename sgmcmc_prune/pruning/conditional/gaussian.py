r"""Removing weights from a Gaussian: what it costs, and where the others go.

Around its mode w the posterior is N(w, Sigma) with the precision P = Sigma^-1: the curvature of the negative
log-posterior. Setting a set S to zero raises that by, and moves the rest R to,

    Delta U(S) = 1/2 w_S' (Sigma_SS)^-1 w_S,        w_R <- w_R - Sigma_RS (Sigma_SS)^-1 w_S.

The second is the mean of w_R given w_S = 0. It needs no Sigma: it minimises 1/2 (w' - w)' P (w' - w) over w'_S = 0, so
P_RR w'_R = (P w)_R, and Delta U is what is left of that square. Bayesian model reduction that shrinks the prior of S to
a point adds to -Delta U one half log |A_SS^-1| / |Sigma_SS|, which depends on no weight: the Savage-Dickey ratio.

All functions work on a batch of B blocks of d weights. Everything is float64.

References
----------
Hassibi, Stork: Second order derivatives for network pruning: Optimal brain surgeon (NeurIPS 1992).
Frantar, Singh, Alistarh: Optimal brain compression (NeurIPS 2022).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Moved(NamedTuple):
    """Weights that were moved, (S, B, d), and Delta U of each block in nats, (S, B)."""

    weights: Tensor
    delta_u: Tensor


class Elimination(NamedTuple):
    """What each weight cost at its turn, and that turn, counted from 0; (B, d). Infinity and d where it stays."""

    loss: Tensor
    turn: Tensor


def condition(precision: Tensor, weights: Tensor, kept: Tensor) -> Moved:
    r"""Set the weights that a mask removes to zero, and the others to their conditional mean.

    .. math:: w'_R = P_{RR}^{-1} (P w)_R, \qquad \Delta U = \tfrac12 (w' - w)' P (w' - w).

    Parameters
    ----------
    precision : Tensor, shape (B, d, d)
        P, positive definite.
    weights : Tensor, shape (S, B, d)
        Of S draws; each is moved by the same map.
    kept : bool Tensor, shape (B, d)

    Returns
    -------
    Moved

    Raises
    ------
    ValueError
        If a block of P is not positive definite.
    """
    stays = kept.to(precision)
    # On S the identity: one factorisation serves blocks that keep unlike numbers of weights.
    held = precision * stays[:, :, None] * stays[:, None, :] + torch.diag_embed(1 - stays)
    pull = torch.einsum("bij,sbj->bis", precision, weights) * stays[:, :, None]
    moved = torch.cholesky_solve(pull, _root(held)).permute(2, 0, 1)
    gap = moved - weights
    return Moved(moved, torch.einsum("sbi,bij,sbj->sb", gap, precision, gap) / 2)


def eliminate(precision: Tensor, weights: Tensor, free: Tensor) -> Elimination:
    r"""Remove the free weights of every block one after the other, the cheapest first.

    With :math:`\Sigma = P^{-1}`, the next q is the one with the smallest :math:`w_q^2 / (2 \Sigma_{qq})` (its mean over
    the draws), and then

    .. math:: w \leftarrow w - \Sigma_{:q} \frac{w_q}{\Sigma_{qq}}, \qquad
              \Sigma \leftarrow \Sigma - \frac{\Sigma_{:q} \Sigma_{q:}}{\Sigma_{qq}}.

    The losses of the first k turns sum to Delta U of the k weights together.

    Parameters
    ----------
    precision : Tensor, shape (B, d, d)
        P, positive definite.
    weights : Tensor, shape (S, B, d)
        Of S draws.
    free : bool Tensor, shape (B, d)
        Those that may be removed.

    Returns
    -------
    Elimination

    Raises
    ------
    ValueError
        If a block of P is not positive definite.
    """
    sigma, w, free = torch.cholesky_inverse(_root(precision)), weights.clone(), free.clone()
    rows, size = torch.arange(len(free), device=free.device), free.shape[1]
    found = Elimination(torch.full_like(w[0], torch.inf), torch.full_like(free, size, dtype=torch.long))
    for turn in range(int(free.sum(1).max())):
        loss = (w.square().mean(0) / (2 * sigma.diagonal(dim1=1, dim2=2))).where(free, torch.inf)
        cheapest, q = loss.min(1)
        active = free.any(1)  # a block with nothing left to remove stays as it is
        b, q = rows[active], q[active]
        found.loss[b, q], found.turn[b, q] = cheapest[active], turn
        free[b, q] = False
        pivot, column = sigma[b, q, q], sigma[b, :, q]
        w[:, b] -= (w[:, b, q] / pivot)[:, :, None] * column
        if len(b) == len(rows):
            sigma.baddbmm_(-(column / pivot[:, None])[:, :, None], column[:, None, :])
        else:
            sigma[b] -= (column / pivot[:, None])[:, :, None] * column[:, None, :]
    return found


def _root(precision: Tensor) -> Tensor:
    """Cholesky factors; ValueError if there are none."""
    root, info = torch.linalg.cholesky_ex(precision)
    if bool((info != 0).any()):
        raise ValueError(
            f"{int((info != 0).sum())} of {len(precision)} blocks of the curvature are not positive definite; give a "
            "larger prior precision, or more examples"
        )
    return root
