"""The noise of minibatch gradients at a frozen state: what heats a chain above its temperature."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods import Likelihood, mean_nll
from sgmcmc_prune.pruning.inclusion import Moments


def gradient_variance(
    model: nn.Module, likelihood: Likelihood, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Variance V_g over minibatches of the gradient of the mean negative log-likelihood, at the model's weights.

    Nothing moves: `.grad`, buffers (BatchNorm) and PyTorch's random state are left as they were.

    Parameters
    ----------
    model : nn.Module
        In the mode (training, for a chain) in which its gradients are taken.
    likelihood : Likelihood
    batches : iterable of (inputs, targets)
        At least two independent minibatches.

    Returns
    -------
    dict of str to Tensor
        Unbiased estimate for every entry of every parameter that takes part in the loss, shaped like the parameter.

    Raises
    ------
    ValueError
        With fewer than two minibatches.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    moments = {name: Moments() for name in parameters}
    devices = {p.device for p in parameters.values() if p.is_cuda}
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        count = 0
        for inputs, targets in batches:
            count += 1
            outputs = torch.func.functional_call(model, buffers, (inputs,))
            loss = mean_nll(likelihood, outputs, targets)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for moment, gradient in zip(moments.values(), gradients, strict=True):
                if gradient is not None:
                    moment.update(gradient)
    if count < 2:
        raise ValueError(f"a variance over minibatches needs at least two of them; there are {count}")
    return {name: moment.variance for name, moment in moments.items() if moment.count}
