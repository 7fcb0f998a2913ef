r"""Which groups are in together: co-inclusion, and the most probable masks, from the draws of a spike-and-slab chain.

Given the weights of a draw, the indicators are independent, with the probabilities r_g(w) of their conditional
log-odds. So every average below is Rao-Blackwellised: with S draws from mode `gibbs` or `marginal`,

    P(gamma_g = 1, gamma_h = 1 | D) = 1/S sum_s r_g(w_s) r_h(w_s)     (g != h),
    P(gamma = m | D) = 1/S sum_s prod_g r_g(w_s)^m_g (1 - r_g(w_s))^(1 - m_g).

Two features that stand for each other are each in half of the models and never together: a single probability near 1/2
says neither. A draw belongs to mask m with the weight p(m | w_s), and the average over masks is that over draws and
masks with these weights.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Groups whose co-inclusion is a matrix of reasonable size.
MAX_GROUPS = 5000


@dataclass(frozen=True)
class FrequentMasks:
    """The most probable of the masks that were looked at.

    Attributes
    ----------
    masks : bool Tensor, shape (K, G)
        True = in, most probable first.
    probability : Tensor, shape (K,)
        Of each, among all 2^G.
    weights : Tensor, shape (K, S)
        Share of draw s under mask k in the average over these masks; they sum to 1.
    """

    masks: Tensor
    probability: Tensor
    weights: Tensor


def co_inclusion(log_odds: Tensor) -> Tensor:
    """Probabilities that two groups are in together; on the diagonal those of one.

    Parameters
    ----------
    log_odds : Tensor, shape (S, G)
        Conditional log-odds of each draw, as `SpikeSlab.log_odds` gives them at the chain's temperature.

    Returns
    -------
    Tensor, shape (G, G), float64

    Raises
    ------
    ValueError
        If there is no draw, a log-odds is NaN, or there are more than `MAX_GROUPS` groups.
    """
    _check(log_odds)
    if log_odds.shape[1] > MAX_GROUPS:
        raise ValueError(f"co-inclusion of {log_odds.shape[1]} groups is a matrix; give at most {MAX_GROUPS} of them")
    r = log_odds.double().sigmoid()
    together = r.T @ r / len(r)
    return together.fill_diagonal_(0) + r.mean(0).diag()


def frequent_masks(log_odds: Tensor, count: int, seed: int = 0) -> FrequentMasks:
    """The most probable masks, of those that draws have: the likeliest of each draw, and one drawn from each.

    Parameters
    ----------
    log_odds : Tensor, shape (S, G)
    count : int
        K, at most; fewer if the draws have fewer.
    seed : int
        Key of the masks that are drawn.

    Returns
    -------
    FrequentMasks

    Raises
    ------
    ValueError
        As `co_inclusion`, or if `count` is not positive.
    """
    _check(log_odds)
    if count < 1:
        raise ValueError(f"count is {count}; ask for one mask at least")
    eta = log_odds.double()
    uniform = torch.rand(eta.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(eta.device)
    candidates = torch.cat([eta > 0, uniform < eta.sigmoid()]).unique(dim=0)
    # log p(m | w_s) = sum_g m_g log r_g + (1 - m_g) log (1 - r_g)
    log_in, log_out = F.logsigmoid(eta), F.logsigmoid(-eta)
    given_draw = candidates.double() @ (log_in - log_out).T + log_out.sum(1)
    log_probability = given_draw.logsumexp(1) - torch.tensor(len(eta), dtype=torch.float64).log()
    order = log_probability.argsort(descending=True)[:count]
    chosen = given_draw[order]
    return FrequentMasks(
        candidates[order], log_probability[order].exp(), (chosen - chosen.flatten().logsumexp(0)).exp()
    )


def _check(log_odds: Tensor) -> None:
    if log_odds.dim() != 2 or len(log_odds) < 1:
        raise ValueError(f"log-odds have shape {tuple(log_odds.shape)}; give (draws, groups) with one draw at least")
    if bool(log_odds.isnan().any()):
        raise ValueError("log-odds hold NaN; the chain has diverged")
