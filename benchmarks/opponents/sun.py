r"""Sun, Song and Liang's consistent sparse deep learning in plain torch, with the fixed prior of the paper.

    python benchmarks/opponents/sun.py --spike-variance 4e-5 --data DIR

Every weight has the prior lambda N(0, v1) + (1 - lambda) N(0, v0); with p(w) its density, SGD follows

    dL = d mean NLL - (1 / N) d log p(w),
    -d log p(w) = w (r / v1 + (1 - r) / v0),   logit r = log(lambda / (1 - lambda)) + log(v0 / v1) / 2
                                                         + w^2 (1 / v0 - 1 / v1) / 2.

The first part of the training has N(0, v1) alone, the second the mixture; then weights with r < 1/2 go, |w| < w* with

    w*^2 = 2 log[(1 - lambda) / lambda  sqrt(v1 / v0)] / (1 / v0 - 1 / v1),

and the rest train on under N(0, v1). The sparsity is what v0 and lambda make it: `--sparsity` is a note of what was
wanted. Biases are N(0, v1) throughout. One JSON line for each seed goes to `sun.jsonl`.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import BATCH, STEPS, TRAIN, Data, Masks, apply, arguments, cosine, minibatches, run, weights
from torch import Tensor, nn


def log_odds(w: Tensor, a: argparse.Namespace) -> Tensor:
    """Logit r(w)."""
    rate, v0, v1 = a.inclusion_rate, a.spike_variance, a.slab_variance
    return math.log(rate / (1 - rate)) + math.log(v0 / v1) / 2 + w.square() * (1 / v0 - 1 / v1) / 2


def descend(
    model: nn.Module,
    data: Data,
    batches: Iterator[Tensor],
    rates: list[float],
    a: argparse.Namespace,
    mixture_from: int,
    masks: Masks | None = None,
) -> None:
    """SGD with one learning rate for each step; the prior is the mixture from a step on."""
    sparse = weights(model).values()
    optimizer = torch.optim.SGD(model.parameters(), rates[0], momentum=a.momentum)
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        batch = next(batches)
        F.cross_entropy(model(data[0][batch]), data[1][batch]).backward()
        with torch.no_grad():
            for p in model.parameters():
                precision = torch.full_like(p, 1 / a.slab_variance)
                if step >= mixture_from and any(p is w for w in sparse):
                    r = log_odds(p, a).sigmoid()
                    precision = r / a.slab_variance + (1 - r) / a.spike_variance
                p.grad += precision * p / TRAIN
        optimizer.step()
        if masks:
            apply(model, masks)


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """The four stages; see `plain.Fit`."""
    last = round(a.fine_tune * STEPS)
    first, batches = STEPS - last, minibatches(generator)
    rates = [cosine(a.lr, 0.0, step / first) for step in range(first)]
    descend(model, data, batches, rates, a, mixture_from=round(a.plain * first))
    masks = {name: (log_odds(w, a) >= 0).detach() for name, w in weights(model).items()}
    apply(model, masks)
    descend(model, data, batches, [a.fine_tune_lr] * last, a, mixture_from=last, masks=masks)
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__)
    p.add_argument("--inclusion-rate", type=float, default=1e-6)
    p.add_argument("--spike-variance", type=float, default=4e-5)
    p.add_argument("--slab-variance", type=float, default=0.04)
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--plain", type=float, default=0.5, help="share of the steps before the fine-tuning")
    p.add_argument("--fine-tune", type=float, default=0.1, help="share of all steps")
    p.add_argument("--fine-tune-lr", type=float, default=0.01)
    run("sun-mixture", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
