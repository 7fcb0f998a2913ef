"""What is a prunable weight? The one answer, for priors, masks, groups, moments and counts alike.

A weight is prunable if it is trained, has two dimensions or more, and its layer uses it as it is. A weight that two
layers share is one weight, with its first name. Whole output units are never pruned: see `output_weights`.
"""

import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.predictive.predict import evaluation_mode


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; a frozen one is in nothing, a shared one is there once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that may be masked, by name."""
    return {name: p for name, p in trainable(model).items() if not why_not_prunable(model, name, p)}


def why_not_prunable(model: nn.Module, name: str, p: Tensor) -> str:
    """Say why a parameter may not be masked; empty if it may."""
    path, _, own = name.rpartition(".")
    if not p.requires_grad:
        return "frozen"
    if p.dim() < 2:
        return "a vector: a bias, or a scale of a normalisation"
    if ".parametrizations." in f".{name}":
        return "a part of a parametrised weight: its zeros are not zeros of the weight"
    made = own.removesuffix("_g").removesuffix("_v").removesuffix("_orig")
    owner = model.get_submodule(path)
    if made != own and hasattr(owner, made) and not isinstance(getattr(owner, made), nn.Parameter):
        return f"a part of {made!r}, which is computed before every pass: its zeros are not zeros of the weight"
    return ""


def output_weights(model: nn.Module, inputs: Tensor, dim: int = 0) -> set[str]:
    """Find the weights of which one dimension are the network's outputs: whole units of these are never pruned.

    Found by running: the difference of outputs i and j depends on slices i and j of such a weight alone (a softmax at
    the end cancels in the difference).

    Parameters
    ----------
    model : nn.Module
        Gives outputs of shape (n, k), or (n,). A noise that is learned beside it is no output of a unit.
    inputs : Tensor, shape (n, ...)
        A few examples.
    dim : int
        The dimension that is asked about: 0 in a linear layer, 1 in a matrix that inputs are multiplied by.

    Returns
    -------
    set of str
    """
    if isinstance(model, LearnedNoise):
        return {f"network.{name}" for name in output_weights(model.network, inputs, dim)}
    parameters = trainable(model)
    with evaluation_mode(model), torch.enable_grad():
        outputs = model(inputs)
        outputs = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        count = outputs.shape[-1]
        pairs = {(0, min(1, count - 1)), (max(0, count - 2), count - 1)}
        names = {name for name, p in parameters.items() if p.dim() > dim and p.dim() > 1 and p.shape[dim] == count}
        for i, j in pairs:
            difference = outputs[..., i].sum() - outputs[..., j].sum() if i != j else outputs[..., i].sum()
            gradients = torch.autograd.grad(difference, list(parameters.values()), allow_unused=True, retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if name in names and not (gradient is not None and _alive(gradient, dim) == {i, j}):
                    names.remove(name)
    return names


def _alive(gradient: Tensor, dim: int) -> set[int]:
    """The slices along a dimension that are not all zero."""
    return set(gradient.movedim(dim, 0).flatten(1).any(1).nonzero().flatten().tolist())
