r"""How sparse a network may be when its loss must not rise by more than a budget.

Draw s has the losses l_si on n held-out examples, and l'_si under a mask. The rise of its expected loss is known from
their differences d_si, as well as n examples tell: about N(mean_i d_si, var_i d_si / n). So, over draws and examples,

    P(rise < epsilon | draws) = 1/S sum_s Phi((epsilon - mean_i d_si) / sqrt(var_i d_si / n)).

Masks are tried in the order of rising sparsity, and the first one whose probability is too low ends the search. That
is testing in a fixed sequence: only the first mask that costs too much can be let through by mistake, so that no
correction for the number of masks is due.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sgmcmc_prune.pruning.masks import Mask

#: The probability with which the loss stays within the budget.
PROBABILITY = 0.95
#: Each mask keeps so much of the weights of the one before, until this sparsity.
RATIO, LARGEST = 0.9, 0.999


def probability_within(dense: Tensor, pruned: Tensor, budget: float) -> float:
    """P(rise of the expected loss < budget | draws).

    Parameters
    ----------
    dense, pruned : Tensor, shape (draws, examples)
        Losses of the same draws on the same examples, in nats.
    budget : float
        epsilon > 0, in nats per example.

    Raises
    ------
    ValueError
        If the budget is not positive, shapes differ, there are fewer than two examples or no draws, or a dense loss is
        not finite. A pruned network may have an infinite loss: it then has no chance.
    """
    check_budget(budget)
    if dense.dim() != 2 or dense.shape != pruned.shape or len(dense) < 1 or dense.shape[1] < 2:
        raise ValueError(
            f"losses have shapes {tuple(dense.shape)} and {tuple(pruned.shape)}; give the same (draws, examples) "
            "twice, with two examples or more"
        )
    if not bool(dense.isfinite().all()):
        raise ValueError("a loss of the draws without a mask is not finite; the chain has diverged")
    rise = pruned.double() - dense.double()
    usable = rise.isfinite().all(1)
    error = rise.std(1).nan_to_num() / math.sqrt(rise.shape[1])
    z = (budget - rise.mean(1)) / error.clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.special.ndtr(z).where(usable, 0.0).mean())


def largest_within_loss(losses: Callable[[Mask], Tensor], mask_at: Callable[[float], Mask], budget: float) -> Mask:
    """The mask before the first, by rising sparsity, whose loss is within the budget with too low a probability.

    Parameters
    ----------
    losses : callable
        A mask (empty: none) to losses (draws, examples).
    mask_at : callable
        A sparsity to a mask.
    budget : float
        Tolerated rise of the expected loss, in nats per example.

    Returns
    -------
    dict of str to bool Tensor
        The mask that keeps everything, if no other is within the budget.

    Raises
    ------
    ValueError
        As `probability_within`.
    """
    check_budget(budget)
    dense, found, sparsity = losses({}), mask_at(0.0), 1 - RATIO
    while sparsity < LARGEST:
        mask = mask_at(sparsity)
        if probability_within(dense, losses(mask), budget) <= PROBABILITY:
            break
        found, sparsity = mask, 1 - RATIO * (1 - sparsity)
    return found


def check_budget(budget: float) -> None:
    """ValueError unless a budget is a positive number."""
    if not 0 < budget < math.inf:
        raise ValueError(f"the loss budget is {budget}; give the tolerated rise in nats per example, finite and > 0")
