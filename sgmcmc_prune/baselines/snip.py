r"""SNIP: prune once, before training, the weights whose removal changes the loss least.

With a mask c on the weights, at c = 1, the connection sensitivity on one batch is

    s_k = |dL / dc_k| = |w_k dL / dw_k|,

and the highest are kept over all layers together. Weights start at variance 1 / fan-in, as in the paper: the score of a
weight follows the scale of its layer's start. Training starts from the kept weights, scaled to their mask (see
`sparse_start`), where the paper's are not. (Of the released reimplementations some leave out w.)

References
----------
Lee, Ajanthan, Torr: SNIP: single-shot network pruning based on connection sensitivity (ICLR 2019), equation 4.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.sparse_start import fit_by_score
from sgmcmc_prune.baselines.training import Recipe
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.likelihoods import Likelihood, categorical, mean_nll
from sgmcmc_prune.pruning.masks import prunable


def connection_sensitivity(
    model: nn.Module, inputs: Tensor, targets: Tensor, likelihood: Likelihood = categorical
) -> dict[str, Tensor]:
    """Compute |w dL/dw| of every prunable weight.

    Parameters
    ----------
    model : Module
        At its initial weights, in training mode; neither its weights nor its normalisation statistics change.
    inputs, targets : Tensor, shape (n, ...)
        One batch.
    likelihood : callable

    Returns
    -------
    dict of str to Tensor, shape (G,), float64
    """
    weights = prunable(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss = mean_nll(likelihood, functional_call(model, buffers, (inputs,)), targets)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return {n: (w.detach() * g).double().abs().flatten() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def fit(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    *,
    examples: int = 512,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Prune a copy of a network by connection sensitivity, then train what is left.

    Parameters
    ----------
    model : Module
        Gives the architecture, and the start of all parameters that are not pruned; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        Fraction of the prunable weights to mask, in [0, 1).
    recipe : Recipe
    examples : int
        Training examples behind the sensitivities.
    likelihood : callable
    seed : int
        Of the start and the minibatches.
    progress : bool

    Returns
    -------
    Fit
        Its scores are the sensitivities at the start.

    Raises
    ------
    ValueError
        If the sparsity is out of range.
    RunError
        If the loss is not finite.
    """
    return fit_by_score(
        *(model, train, sparsity, recipe, connection_sensitivity, likelihood),
        examples=examples,
        passes=1,
        seed=seed,
        name="snip",
        progress=progress,
        rescale=True,
    )
