"""Roots of the curvature at a network's outputs: what each backward pass of a curvature starts from.

With negative log-likelihood l_n of outputs f_n, the three curvatures of the loss have the form sum_n J_n' S_n S_n' J_n:

- `ggn`: S S' = d^2 l_n / df^2, column by column, one backward pass for each column;
- `monte_carlo`: S xi with random signs xi, whose second moment is S S': one pass, unbiased;
- `empirical`: S = dl_n / df at the observed target: one pass; it vanishes as the training loss does.
"""

from typing import Literal

import torch
from torch import Tensor

from sgmcmc_prune.likelihoods.base import Likelihood
from sgmcmc_prune.likelihoods.categorical import Categorical

Estimator = Literal["ggn", "monte_carlo", "empirical"]


def output_roots(
    estimator: Estimator, likelihood: Likelihood, outputs: Tensor, targets: Tensor, generator: torch.Generator
) -> Tensor:
    """The columns of S for each example, shape (K, n, ...): what each backward pass starts from."""
    if estimator == "empirical":
        f = outputs.detach().requires_grad_()
        return torch.autograd.grad(likelihood(f, targets).sum(), f)[0][None]
    root = _categorical_root(outputs) if type(likelihood) is Categorical else _root(likelihood, outputs, targets)
    if estimator == "ggn":
        return root
    shape = (len(root), len(outputs)) + (1,) * (outputs.ndim - 1)
    signs = torch.randint(0, 2, shape, generator=generator).to(root) * 2 - 1
    return (root * signs).sum(0, keepdim=True)


def _categorical_root(logits: Tensor) -> Tensor:
    """S = diag(sqrt p) - p sqrt(p)', for which S S' = diag(p) - p p'."""
    p = logits.softmax(1)
    return (p.sqrt()[:, :, None] * (torch.eye(p.shape[1], device=p.device) - p[:, None, :])).transpose(0, 1)


def _root(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> Tensor:
    """Symmetric square root of d^2 l / df^2 for each example; any likelihood that is convex in its outputs."""
    f = outputs.detach().requires_grad_()
    (first,) = torch.autograd.grad(likelihood(f, targets).sum(), f, create_graph=True)
    # Examples do not interact, so the gradient of a sum over them is a row of every example's second derivative.
    rows = [torch.autograd.grad(r.sum(), f, retain_graph=True)[0] for r in first.reshape(len(f), -1).unbind(1)]
    values, basis = torch.linalg.eigh(torch.stack([row.reshape(len(f), -1) for row in rows], 1))
    root = (basis * values.clamp_min(0).sqrt()[:, None, :]).permute(2, 0, 1)
    return root.reshape(len(root), *outputs.shape)
