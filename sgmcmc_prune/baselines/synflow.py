r"""SynFlow: prune before training without looking at data, by the flow of absolute weights, in many small rounds.

With every parameter replaced by its absolute value and an input of ones, R is the sum of the outputs, and

    s_k = |w_k dR / d|w_k||

is the part of R that flows through weight k. The scores of a layer add up to those of the next, so that no layer is
emptied as long as the rounds are small: after round t of n the density is the final one to the power t / n. What is
kept trains as it was drawn, with variance 1 / fan-in, as in the paper, and not scaled to its mask, as SNIP's is here.

References
----------
Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic flow
(NeurIPS 2020), equation 2 and algorithm 1.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.sparse_start import train_sparse, variance_scaling
from sgmcmc_prune.baselines.training import Recipe, single_weights
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask, prunable

#: Rounds of the authors.
ROUNDS = 100


def synaptic_flow(model: nn.Module, example: Tensor, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the flow through every prunable weight under a mask.

    Parameters
    ----------
    model : Module
        At its initial weights; not changed. It runs in evaluation mode and float64: flows of deep networks are huge.
    example : Tensor, shape (n, ...)
        Gives the shape of an input.
    mask : mapping of str to bool Tensor
        True = kept; a parameter that it does not name is kept whole.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        If the network bends positive numbers (tanh, normalisation by the input's own moments) or takes tokens: R is no
        flow then.
    """
    if not example.is_floating_point():
        raise ValueError("synflow needs inputs that are numbers: of tokens there is no input of ones")
    model = copy.deepcopy(model).double()
    ones = torch.ones_like(example[:1], dtype=torch.float64)
    positive = {name: p.detach().abs() for name, p in model.named_parameters()}
    for name, kept in mask.items():
        positive[name] = positive[name] * kept
    weights = {name: positive[name].requires_grad_() for name in prunable(model)}
    with evaluation_mode(model):
        flows = [functional_call(model, positive | weights, (scale * ones,)).sum() for scale in (1, 2, 3)]
    first, second = flows[1] - flows[0], flows[2] - flows[1]  # equal, and above zero where nothing saturates
    if not (first > 1e-9 * flows[0] and torch.isclose(second, first, rtol=1e-6, atol=0)):
        raise ValueError("synflow needs a network that passes positive numbers on unbent (ReLU): this one bends them")
    gradients = torch.autograd.grad(flows[0], list(weights.values()))
    return {n: (w.detach() * g).flatten() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def synflow_mask(
    model: nn.Module, example: Tensor, sparsity: float, rounds: int = ROUNDS
) -> tuple[Mask, dict[str, Tensor]]:
    """Prune in rounds; the mask, and the scores before the last of them."""
    groups, mask, scores = single_weights(model), dict[str, Tensor](), dict[str, Tensor]()
    for done in range(1, rounds + 1):
        scores = synaptic_flow(model, example, mask)
        mask = target_sparsity(scores, groups, 1 - (1 - sparsity) ** (done / rounds), previous=mask or None)
    return mask, scores


def fit(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    *,
    rounds: int = ROUNDS,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Prune a copy of a network by synaptic flow, then train what is left.

    Parameters
    ----------
    model : Module
        Gives the architecture, and the start of all parameters that are not pruned; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        Fraction of the prunable weights to mask, in [0, 1).
    recipe : Recipe
    rounds : int
    likelihood : callable
    seed : int
        Of the start and the minibatches.
    progress : bool

    Returns
    -------
    Fit
        Its scores are those before the last round.

    Raises
    ------
    ValueError
        If the sparsity is out of range, or the network bends positive numbers.
    RunError
        If the loss is not finite.
    """
    model = copy.deepcopy(model)
    variance_scaling(prunable(model), seed)
    mask, scores = synflow_mask(model, train[0][:1], sparsity, rounds)
    return train_sparse(
        *(model, train, mask, scores, recipe, likelihood),
        spent=0,
        seed=seed,
        name="synflow",
        progress=progress,
        rescale=False,
    )
