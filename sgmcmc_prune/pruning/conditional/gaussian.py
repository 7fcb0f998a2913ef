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
    """What each weight cost at its turn, and that turn, counted from 0; (B, d). Infinity and d where it stays.

    Of groups (B, G), or (1, G) where a group is in all blocks, and G where it stays.
    """

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

    With :math:`\Sigma = P^{-1}`, the next q is the one with the smallest :math:`w_q^2 / (2 \Sigma_{qq})`, and then

    .. math:: w \leftarrow w - \Sigma_{:q} \frac{w_q}{\Sigma_{qq}}, \qquad
              \Sigma \leftarrow \Sigma - \frac{\Sigma_{:q} \Sigma_{q:}}{\Sigma_{qq}}.

    The losses of the first k turns sum to Delta U of the k weights together.

    Parameters
    ----------
    precision : Tensor, shape (B, d, d)
        P, positive definite.
    weights : Tensor, shape (B, d)
        The mode, or the mean of draws.
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
    found = Elimination(torch.full_like(w, torch.inf), torch.full_like(free, free.shape[1], dtype=torch.long))
    place, turn, left = torch.arange(free.shape[1], device=free.device).expand(free.shape), 0, torch.ones_like(free)
    while bool(free.any()):
        for _ in range((int(free.sum(1).max()) + 1) // 2):
            loss, q = (w.square() / (2 * sigma.diagonal(dim1=1, dim2=2))).where(free, torch.inf).min(1)
            b = free.any(1).nonzero()[:, 0]  # a block with nothing left to remove stays as it is
            q = q[b]
            found.loss[b, place[b, q]], found.turn[b, place[b, q]] = loss[b], turn
            free[b, q] = left[b, q] = False
            turn += 1
            column, step = sigma[b, :, q], sigma[b, :, q] / sigma[b, q, q][:, None]
            w[b] -= w[b, q][:, None] * step
            if len(b) == len(free):
                sigma.baddbmm_(step[:, :, None], column[:, None, :], alpha=-1)
            else:
                sigma[b] -= step[:, :, None] * column[:, None, :]
        # What is gone is cut out whenever half of it is: later turns are cheaper.
        index = places_of(left)
        place, free, left = (x.gather(1, index) for x in (place, free, left))
        sigma, w = square(sigma, index), w.gather(1, index)
    return found


def eliminate_groups(precision: Tensor, weights: Tensor, columns: Tensor, free: Tensor, together: bool) -> Elimination:
    r"""Remove whole groups of weights one after the other, the cheapest first.

    With S the columns of a group and :math:`\Sigma = P^{-1}`, the next group is the one with the smallest

    .. math:: \Delta U(S) = \tfrac12 \sum_b w_{bS}' (\Sigma_{b,SS})^{-1} w_{bS},

    summed over all blocks where it is in all of them, and then in each block that it is in

    .. math:: w \leftarrow w - \Sigma_{:S} \Sigma_{SS}^{-1} w_S, \qquad
              \Sigma \leftarrow \Sigma - \Sigma_{:S} \Sigma_{SS}^{-1} \Sigma_{S:}.

    The losses of the first k turns sum to Delta U of the k groups together. Groups of one weight each that are in one
    block are `eliminate`'s, which is faster.

    Parameters
    ----------
    precision : Tensor, shape (B, d, d)
        P, positive definite.
    weights : Tensor, shape (B, d)
        The mode, or the mean of draws.
    columns : int Tensor, shape (G, k)
        The places of each group in a block.
    free : bool Tensor, shape (B, G), or (1, G) if together
        Groups that may be removed.
    together : bool
        Whether a group is its columns in all blocks; else each block has groups of its own.

    Returns
    -------
    Elimination

    Raises
    ------
    ValueError
        If a block of P is not positive definite.

    References
    ----------
    Kurtic, Frantar, Alistarh: ZipLM (NeurIPS 2023), for columns in all rows.
    """
    sigma, w, free = torch.cholesky_inverse(_root(precision)), weights.clone(), free.clone()
    found = Elimination(
        torch.full_like(free, torch.inf, dtype=w.dtype), torch.full_like(free, free.shape[1], dtype=torch.long)
    )
    gone, each = torch.zeros_like(free), torch.arange(len(free), device=free.device)
    unit, every = torch.eye(columns.shape[1]).to(sigma), torch.arange(len(sigma), device=free.device)
    for turn in range(int(free.sum(1).max())):
        inner = sigma[:, columns[:, :, None], columns[:, None, :]].where(~gone[:, :, None, None], unit)
        inside = w[:, columns]
        loss = (inside * torch.linalg.solve(inner, inside)).sum(2) / 2
        loss = (loss.sum(0, keepdim=True) if together else loss).where(free, torch.inf)
        cost, g = loss.min(1)
        chosen = cost < torch.inf  # a block with nothing left to remove stays as it is
        b, g = each[chosen], g[chosen]
        found.loss[b, g], found.turn[b, g] = cost[chosen], turn
        free[b, g], gone[b, g] = False, True
        b, g = (every, g.expand(len(every))) if together else (b, g)
        s = columns[g]
        across = sigma[b[:, None], :, s].transpose(1, 2)  # (b, d, k)
        step = torch.linalg.solve(sigma[b[:, None, None], s[:, :, None], s[:, None, :]], across, left=False)
        w[b] -= (step @ w[b[:, None], s][:, :, None])[:, :, 0]
        if len(b) == len(sigma):
            sigma.baddbmm_(step, across.transpose(1, 2), alpha=-1)
        else:
            sigma[b] -= step @ across.transpose(1, 2)
    return found


def places_of(chosen: Tensor) -> Tensor:
    """Where the chosen entries of each row of (B, d) are, (B, k) with k of the longest row; others fill the rest."""
    return (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(1, int(chosen.sum(1).max()))]


def square(matrix: Tensor, index: Tensor) -> Tensor:
    """Rows and columns (B, k) of matrices (B, d, d): (B, k, k)."""
    rows = matrix.gather(1, index[:, :, None].expand(-1, -1, matrix.shape[2]))
    return rows.gather(2, index[:, None, :].expand(-1, index.shape[1], -1))


def _root(precision: Tensor) -> Tensor:
    """Cholesky factors; ValueError if there are none."""
    root, info = torch.linalg.cholesky_ex(precision)
    if bool((info != 0).any()):
        raise ValueError(
            f"{int((info != 0).sum())} of {len(precision)} blocks of the curvature are not positive definite; give a "
            "larger prior precision, or more examples"
        )
    return root
