"""Likelihoods: the negative log-likelihood of each example, in nats, normalised.

Types and shapes are checked at every call; values once for all targets, by `check_targets`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: outputs (n, ...), targets (n, ...) -> negative log-likelihood (n,)
Likelihood = Callable[[Tensor, Tensor], Tensor]
#: No class has this label. Torch leaves examples with its "ignored" label, by default -100, out without a word.
_NO_LABEL = -(2**63)


def categorical(outputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax likelihood: outputs are logits (n, classes), targets class indices (n,) of any integer type."""
    if targets.dtype.is_floating_point or targets.dtype.is_complex or targets.dtype == torch.bool:
        raise TypeError(f"class labels are {targets.dtype}; give integers (of one-hot rows, argmax(1))")
    if outputs.ndim != 2 or targets.shape != outputs.shape[:1] or outputs.shape[1] < 2:
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)} and class labels {tuple(targets.shape)}; give (n, classes), "
            "with two classes or more, and (n,)"
        )
    try:
        return F.cross_entropy(outputs, targets.long(), reduction="none", ignore_index=_NO_LABEL)
    except IndexError as error:
        raise ValueError(f"class labels must be 0 to {outputs.shape[1] - 1}: {error}") from error


def bernoulli(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logistic likelihood: outputs are logits, targets 0 or 1, both (n,), (n, 1) or (n, k), which count together."""
    outputs, targets = _alike(outputs, targets)
    return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs), reduction="none").sum(1)


def gaussian(variance: float = 1.0) -> Likelihood:
    """Regression with known noise variance s^2: (y - f)^2 / (2 s^2) + log(2 pi s^2) / 2; the half is part of it.

    Outputs and targets are (n,), (n, 1), or (n, k): then an example's is the sum over its k numbers.
    """
    if not 0 < variance < math.inf:
        raise ValueError(f"noise variance is {variance}; it must be finite and > 0")

    def nll(outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = _alike(outputs, targets)
        residual = outputs - targets
        return (residual.square() / (2 * variance) + math.log(2 * math.pi * variance) / 2).sum(1)

    return nll


def _alike(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (n, k); ValueError if they do not hold as many real numbers for each example: nothing is broadcast."""
    both = [x.unsqueeze(-1).flatten(1) if x.ndim else x for x in (outputs, targets)]
    if both[0].shape != both[1].shape or outputs.ndim == 0 or targets.dtype.is_complex:
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)} ({targets.dtype}); give as "
            "many real numbers for each example: (n,) or (n, k)"
        )
    return both[0], both[1] if targets.dtype.is_floating_point else both[1].to(outputs)


def check_targets(likelihood: Likelihood, targets: Tensor) -> None:
    """Refuse targets that no outcome of a likelihood can be; ValueError names the first example."""
    bad = ~targets.isfinite()
    if likelihood is bernoulli:
        bad |= (targets != 0) & (targets != 1)
    rows = bad.unsqueeze(-1).flatten(1).any(1).nonzero().flatten().tolist()
    if rows:
        expected = "0 or 1" if likelihood is bernoulli else "finite"
        raise ValueError(f"the target of example {rows[0]} is {targets[rows[0]].tolist()}; it must be {expected}")


def mean_nll(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch: what a sampler's `.grad` must be the gradient of."""
    return torch.mean(likelihood(outputs, targets))
