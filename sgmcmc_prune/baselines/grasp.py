r"""GraSP: prune once, before training, the weights whose removal hurts the gradient flow least.

The gradient flow is how fast the loss falls at first, |g|^2. Removing a weight changes half of it, to first order, by

    S_k = -w_k (H g)_k,

with the Hessian H of the loss. Weights whose removal raises the flow most, or lowers it least, go: the highest S.
Scores here are -S, so that high ones are kept. Logits are divided by a temperature before the loss, as in the authors'
code. Weights start at variance 2 / fan-in (He et al. 2015); the authors' convolutions have 2 / fan-out, and their last
layer a standard deviation of 0.01. What is kept is not scaled to its mask, as SNIP's is here: such masks raise the flow
already, and MLPs that were scaled as well learned little or nothing at a learning rate of 0.1 (3,000 images of
Fashion-MNIST, two seeds, from 1 / fan-in).

References
----------
Wang, Zhang, Grosse: Picking winning tickets before training by preserving gradient flow (ICLR 2020), equation 8.
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

#: What the authors divide logits by.
TEMPERATURE = 200.0
#: Backward passes that a score takes: one for g, and one through it.
PASSES = 2


def gradient_flow(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    likelihood: Likelihood = categorical,
    temperature: float = TEMPERATURE,
) -> dict[str, Tensor]:
    """Compute w (H g) of every prunable weight.

    Parameters
    ----------
    model : Module
        At its initial weights, in training mode; neither its weights nor its normalisation statistics change.
    inputs, targets : Tensor, shape (n, ...)
        One batch.
    likelihood : callable
    temperature : float
        Of the network's outputs.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64
    """
    weights = prunable(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss = mean_nll(likelihood, functional_call(model, buffers, (inputs,)) / temperature, targets)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    flow = sum((g.square().sum() for g in gradients), loss.new_zeros(())) / 2
    products = torch.autograd.grad(flow, list(weights.values()))
    return {n: (w.detach() * hg).double().flatten() for (n, w), hg in zip(weights.items(), products, strict=True)}


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
    """Prune a copy of a network by gradient flow, then train what is left.

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
        Training examples behind the scores.
    likelihood : callable
    seed : int
        Of the start and the minibatches.
    progress : bool

    Returns
    -------
    Fit
        Its scores are those at the start.

    Raises
    ------
    ValueError
        If the sparsity is out of range.
    RunError
        If the loss is not finite.
    """
    return fit_by_score(
        *(model, train, sparsity, recipe, gradient_flow, likelihood),
        examples=examples,
        passes=PASSES,
        seed=seed,
        name="grasp",
        progress=progress,
        rescale=False,
        gain=2.0,
    )
