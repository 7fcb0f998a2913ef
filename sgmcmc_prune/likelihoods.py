"""Likelihoods: the negative log-likelihood of each example, in nats, normalised."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: outputs (n, ...), targets (n, ...) -> negative log-likelihood (n,)
Likelihood = Callable[[Tensor, Tensor], Tensor]


def categorical(outputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax likelihood: outputs are logits (n, classes), targets class indices (n,)."""
    return F.cross_entropy(outputs, targets, reduction="none")


def bernoulli(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logistic likelihood: outputs are logits (n,) or (n, 1), targets 0 or 1 (n,)."""
    return F.binary_cross_entropy_with_logits(outputs.reshape(len(targets)), targets.to(outputs), reduction="none")


def gaussian(variance: float = 1.0) -> Likelihood:
    """Regression with known noise variance s^2: (y - f)^2 / (2 s^2) + log(2 pi s^2) / 2; the half is part of it."""
    if not variance > 0:
        raise ValueError(f"noise variance is {variance}; it must be > 0")

    def nll(outputs: Tensor, targets: Tensor) -> Tensor:
        residual = outputs.reshape(len(targets)) - targets.reshape(len(targets))
        return residual.square() / (2 * variance) + math.log(2 * math.pi * variance) / 2

    return nll


def mean_nll(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch: what a sampler's `.grad` must be the gradient of."""
    return torch.mean(likelihood(outputs, targets))
