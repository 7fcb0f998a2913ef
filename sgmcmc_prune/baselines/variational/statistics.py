r"""What a layer and a divergence need of the factor of a weight tensor, as one node of the autograd graph.

The layer needs the moments of each entry. The divergence from a normal prior that the entries of a row share, such as the
weights into a node, is linear in a few sums over the row. Made together they need sigma^2 once; and the gradient, in closed
form, is a few passes over memory where a graph of elementary operations makes dozens. With a gate on each entry,
g = sigmoid(lambda) is the probability that it is in the slab N(mu, sigma^2); without, g = 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Entries that are worked on at a time where there are many operations, so that all that they need stays in the cache.
_BLOCK = 2**15


class Statistics(NamedTuple):
    """Moments of each entry, and sums over the entries of each row, shape (J,)."""

    mean: Tensor  #: E w
    variance: Tensor  #: Var w
    log_std: Tensor  #: sum of g log sigma
    second_moment: Tensor  #: sum of g (sigma^2 + mu^2)
    size: Tensor | int  #: sum of g
    information: Tensor | float  #: sum of g log g + (1 - g) log (1 - g)


def of_normal(mean: Tensor, log_std: Tensor) -> Statistics:
    """Statistics of N(mu, sigma^2), entry by entry, from mu and log sigma with J rows."""
    return Statistics(*_Normal.apply(mean, log_std), mean[0].numel(), 0.0)


def of_gated(mean: Tensor, log_std: Tensor, logits: Tensor) -> Statistics:
    """The same with gates, from mu, log sigma and the gates' logits."""
    return Statistics(*_Gated.apply(mean, log_std, logits))


class _Normal(torch.autograd.Function):
    r"""With rho = log sigma and v = e^{2 rho}: mu, v, and the row sums a = sum rho and b = sum (v + mu^2). Backwards

    .. math:: d\mu = dm + 2 \mu\,db, \qquad d\rho = da + 2 v (dv + db).
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor) -> tuple[Tensor, ...]:
        variance = log_std.exp().square_()
        ctx.save_for_backward(mean, variance)
        return mean, variance, total(log_std), total(variance) + _squares(mean)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        mean, variance = ctx.saved_tensors
        dm, dv, da, db = gradients[0], gradients[1], *(per_row(g, mean) for g in gradients[2:])
        return torch.addcmul(dm, mean, 2 * db), torch.addcmul(da, variance, dv + db, value=2)


class _Gated(torch.autograd.Function):
    r"""With g = sigmoid(lambda), rho = log sigma, v = e^{2 rho} and q = v + mu^2: the moments and the row sums

    .. math::
        m = g \mu, \quad w = g (v + (1 - g) \mu^2), \quad
        a = \sum g \rho, \quad b = \sum g q, \quad c = \sum g, \quad e = \sum \log g - (1 - g) \lambda.

    Backwards

    .. math::
        d\mu &= g \left( dm + 2 \mu (db + (1 - g)\,dw) \right), \qquad d\rho = g (da + 2 v (db + dw)), \\
        d\lambda &= g (1 - g) \left( \mu\,dm + (q - 2 g \mu^2)\,dw + \rho\,da + q\,db + dc + \lambda\,de \right).
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        g, v, m, w = (torch.empty_like(mean) for _ in range(4))
        sums = mean.new_empty(4, len(mean))
        ctx.save_for_backward(mean, log_std, logits, g, v)
        for block in _blocks(mean):
            mu, rho, lam, g_, v_, m_, w_ = (x[block] for x in (mean, log_std, logits, g, v, m, w))
            torch.sigmoid(lam, out=g_)
            torch.exp(rho, out=v_).square_()
            torch.mul(g_, mu, out=m_)
            closed, slab = 1 - g_, g_ * v_
            torch.addcmul(slab, m_, closed * mu, out=w_)
            terms = (g_ * rho, slab.addcmul_(m_, mu), g_, g_.log().addcmul_(closed, lam, value=-1))
            for rows, term in zip(sums, terms, strict=True):
                rows[block] = total(term)
        return m, w, *sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        found = [torch.empty_like(x) for x in ctx.saved_tensors[:3]]
        for block in _blocks(found[0]):
            mu, rho, lam, g, v = (x[block] for x in ctx.saved_tensors)
            d_mu, d_rho, d_lam = (x[block] for x in found)
            dm, dw = (x[block] for x in gradients[:2])
            da, db, dc, de = (per_row(x[block], mu) for x in gradients[2:])
            q = torch.addcmul(v, mu, mu)
            torch.addcmul(dw, g, dw, value=-1, out=d_mu).add_(db).mul_(mu)
            torch.add(dm, d_mu, alpha=2, out=d_mu).mul_(g)
            torch.add(dw, db, out=d_rho).mul_(v)
            torch.add(da, d_rho, alpha=2, out=d_rho).mul_(g)
            s = (g * mu).mul_(mu)
            torch.sub(q, s, alpha=2, out=s).mul_(dw).addcmul_(mu, dm).addcmul_(rho, da).addcmul_(q, db).add_(dc)
            torch.addcmul(g, g, g, value=-1, out=d_lam).mul_(s.addcmul_(lam, de))
        return tuple(found)


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of a few rows each."""
    step = max(1, _BLOCK // max(1, x[0].numel()))
    return (slice(first, first + step) for first in range(0, len(x), step))


def per_row(values: Tensor | float, like: Tensor) -> Any:
    """One value per row (or for all), broadcastable over a tensor (J, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1))) if isinstance(values, Tensor) and values.ndim else values


def total(x: Tensor) -> Tensor:
    """Sum of all entries in each row, shape (J,)."""
    return x.unsqueeze(-1).sum(tuple(range(1, x.ndim + 1)))


def _squares(x: Tensor) -> Tensor:
    """Sum of the squares of all entries in each row, shape (J,)."""
    return torch.linalg.vector_norm(x.unsqueeze(-1), dim=tuple(range(1, x.ndim + 1))).square()
