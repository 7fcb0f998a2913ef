r"""Deng, Zhang, Liang and Lin's SGHMC-SA in plain torch: sample, adapt a Laplace-spike prior, prune by magnitude.

    python benchmarks/opponents/deng.py --data DIR

    SGHMC:  u <- b u - l g + sqrt(2 l (1 - b) T / N) eps,   w <- w + u,
            g = d mean NLL + (1 / N) [ r w / v1 + (1 - r) sign(w) / k ],   k = sqrt(v0 / 2), spike exp(-|w| / k) / 2k,
    E-step: r~ = sigmoid( log(p / (1 - p)) + log(2 k / sqrt(2 pi v1)) + |w| / k - w^2 / (2 v1) ),
            r <- r + o (r~ - r), and so every statistic below,   o_i = (1 + i / delay)^-decay,
    M-step: p = sum r / (2 G), which is the mode under p ~ Beta(1, 1 + G);   v1 = sum r w^2 / sum r     (a layer each).

The temperature falls by one factor a step. Once for each pass over the data the smallest |w| of every layer are set to
zero, up to S (1 - 2^(-t / half_life)); they may move on from there. At the end they are masked up to S, and the chain
goes on under that mask; its last state is the network. Biases are N(0, v1). The paper has a scale of its own for each
layer, and the M-step of v1 is in its place here. One JSON line for each seed goes to `deng.jsonl`.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import BATCH, STEPS, TRAIN, Data, Masks, apply, arguments, cosine, global_mask, minibatches, run, weights
from torch import Tensor, nn


class LayerPrior:
    """Hyperparameters, responsibilities and smoothed statistics of one weight matrix."""

    def __init__(self, w: Tensor, a: argparse.Namespace) -> None:
        self.rate, self.slab, self.k = a.inclusion_rate, a.slab_variance, math.sqrt(a.spike_variance / 2)
        self.r = torch.full_like(w, self.rate)
        self.sums: Tensor | None = None

    def pull(self, w: Tensor) -> Tensor:
        """-d log prior / dw at the held responsibilities."""
        return self.r * w / self.slab + (1 - self.r) * w.sign() / self.k

    def adapt(self, w: Tensor, omega: float, a: argparse.Namespace) -> None:
        """One E-step and one M-step."""
        constant = math.log(self.rate / (1 - self.rate)) + math.log(2 * self.k) - math.log(2 * math.pi * self.slab) / 2
        self.r += omega * ((constant + w.abs() / self.k - w.square() / (2 * self.slab)).sigmoid() - self.r)
        now = torch.stack([self.r.sum(), (self.r * w.square()).sum()])
        self.sums = now if self.sums is None else self.sums + omega * (now - self.sums)
        total, count = float(self.sums[0]), w.numel()
        self.rate = min(max(total / (2 * count), 0.5 / count), 1 - 0.5 / count)
        self.slab = max(float(self.sums[1]) / max(total, 1.0), 10 * a.spike_variance)


def smallest(model: nn.Module, sparsity: float) -> Masks:
    """A mask without the smallest weights of each layer."""
    return {n: global_mask({n: w.detach().abs()}, sparsity)[n] for n, w in weights(model).items()}


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Sample, adapt and prune, then sample under the mask; see `plain.Fit`."""
    (x, y), batches, last = data, minibatches(generator), round(a.fine_tune * STEPS)
    first, half_life = STEPS - last, round(a.half_life * STEPS)
    priors = {name: LayerPrior(w.detach(), a) for name, w in weights(model).items()}
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    masks: Masks = {}
    for step in range(STEPS):
        rate = cosine(a.lr, a.lr_min, step / STEPS)
        temperature = a.temperature * (a.final_temperature / a.temperature) ** min(1.0, step / first)
        model.zero_grad()
        batch = next(batches)
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                pull = priors[name].pull(p) if name in priors else p / a.slab_variance
                noise = math.sqrt(2 * rate * (1 - a.momentum) * temperature / TRAIN) * torch.randn_like(p)
                momentum[name] = a.momentum * momentum[name] - rate * (p.grad + pull / TRAIN) + noise
                momentum[name] *= masks.get(name, 1)
                p += momentum[name]
            done = step + 1
            if done <= first and done % a.every == 0:
                for name, prior in priors.items():
                    omega = (1 + (done // a.every - 1) / a.delay) ** -a.decay
                    prior.adapt(weights(model)[name].detach(), omega, a)
            if done <= first and done % round(TRAIN / BATCH) == 0:
                apply(model, smallest(model, a.sparsity * (1 - 2 ** (-done / half_life))))
            if done == first:
                masks = smallest(model, a.sparsity)
                apply(model, masks)
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__)
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--lr-min", type=float, default=0.002)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--inclusion-rate", type=float, default=0.5)
    p.add_argument("--spike-variance", type=float, default=1e-4)
    p.add_argument("--slab-variance", type=float, default=0.05)
    p.add_argument("--temperature", type=float, default=1e-3)
    p.add_argument("--final-temperature", type=float, default=1e-3 * 1.005**-1000)
    p.add_argument("--every", type=int, default=20, help="steps between two M-steps")
    p.add_argument("--delay", type=float, default=10.0)
    p.add_argument("--decay", type=float, default=0.75)
    p.add_argument("--half-life", type=float, default=0.1, help="share of the steps")
    p.add_argument("--fine-tune", type=float, default=0.25, help="share of the steps")
    run("sghmc-sa", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
