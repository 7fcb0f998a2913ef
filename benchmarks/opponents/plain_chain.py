r"""Log-odds in the chain, our own method, once more in plain torch: nothing of the package is used.

    python benchmarks/opponents/plain_chain.py --sparsity 0.95 --seeds 0 1 --data DIR

SGHMC on U / N, in the units of SGD, with random signs xi; T = 0.01, beta = 1 - 0.1 sqrt(l / l_max) for the step l:

    force = grad of the mean NLL of a minibatch + r(w) w / N,        N = 50,000
    b <- beta b + force - sqrt(2 (1 - beta) T / (N l)) xi,           w <- w - l b,

and b <- b sqrt(l_before / l) where l changes, so that the physical momentum stays. The prior of each weight is
(1 - pi) N(0, v0) + pi N(0, v1) with pi = 0.999, v0 = 1e-4 and v1 = 0.3, which nothing learns (no EM); r is its force,

    eta(w) = log(pi / (1 - pi)) + log(v0 / v1) / 2 + w^2 (1 / v0 - 1 / v1) / 2,
    r(w) = sigmoid(eta) / v1 + sigmoid(-eta) / v0;        of a bias r = 1.

The 3,125 steps are a burn-in of 158 and an exploration of 2,656, in each of which l falls by a cosine from l_max = 0.1
to 0.002, and 311 steps at 0.002. In the first half of the exploration, at its step t, m <- 0.95 m + 0.05 eta(w)
before every step (m = eta at the first), and before every 20th and at the end the weights with the lowest m go for
ever, over all layers, those that went before first, up to the sparsity s (1 - (1 - t / 1328)^3). After 31 of the last
311 steps every 70th state is a draw, and the network is the mean of the four draws. One JSON line for each seed goes to
`plain.jsonl`.

eta is linear in w^2, increasing, and the same function for all weights: so the m rank as averages of w^2 would. What
remains between this chain and gradual magnitude pruning can be left out, one ingredient at a time (`--without`):

    noise      T = 0                         spike      r(w) = 1 / v1
    mean       the last of the four draws    smoothing  m = eta
    burn-in    one cosine over 2,814 steps   annealing  of the friction: beta = 0.9
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import BATCH, STEPS, TRAIN, Data, apply, arguments, cosine, global_mask, largest, minibatches, run, weights
from torch import Tensor, nn

BURN_IN, EXPLORE, RELAX, THIN, EVERY = 158, 2656, 31, 70, 20
GROWTH, SMOOTHING = EXPLORE // 2, 0.05
LR_MIN, FRICTION, TEMPERATURE = 0.002, 0.1, 0.01
INCLUSION, SPIKE = 0.999, 1e-4
PARTS = ("noise", "mean", "spike", "smoothing", "burn-in", "annealing")


def rate(step: int, lr: float, burn_in: bool = True) -> float:
    """The step l."""
    if not burn_in:
        return cosine(lr, LR_MIN, min(1.0, step / (BURN_IN + EXPLORE)))
    if step < BURN_IN:
        return cosine(lr, LR_MIN, step / BURN_IN)
    return cosine(lr, LR_MIN, min(1.0, (step - BURN_IN) / EXPLORE))


def log_odds(w: Tensor, slab: float) -> Tensor:
    """eta(w)."""
    constant = math.log(INCLUSION / (1 - INCLUSION)) + math.log(SPIKE / slab) / 2
    return constant + w.detach().double().square() * (1 / SPIKE - 1 / slab) / 2


def precision(w: Tensor, slab: float) -> Tensor:
    """r(w)."""
    eta = log_odds(w, slab)
    return (eta.sigmoid() / slab + (-eta).sigmoid() / SPIKE).float()


def force(w: Tensor, a: argparse.Namespace) -> Tensor | float:
    """r(w), or that of the slab alone."""
    return 1 / a.slab_variance if a.without == "spike" else precision(w, a.slab_variance)


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Take the chain, and leave the mean of its draws in the network; see `plain.Fit`."""
    (x, y), pruned, parameters = data, weights(model), dict(model.named_parameters())
    buffers = {name: torch.zeros_like(p) for name, p in parameters.items()}
    masks, averages, before, draws = largest(model, 0.0), {}, a.lr, []
    temperature = 0.0 if a.without == "noise" else TEMPERATURE
    smoothing = 1.0 if a.without == "smoothing" else SMOOTHING
    for step, batch in zip(range(STEPS), minibatches(generator), strict=False):
        lr, t = rate(step, a.lr, burn_in=a.without != "burn-in"), step - BURN_IN
        if 0 <= t <= GROWTH:
            eta = {name: log_odds(w, a.slab_variance) for name, w in pruned.items()}
            averages = {name: averages.get(name, new).lerp(new, smoothing) for name, new in eta.items()}
            if t % EVERY == 0 or t == GROWTH:
                kept = {name: m.where(masks[name], -math.inf) for name, m in averages.items()}
                masks = global_mask(kept, a.sparsity * (1 - (1 - t / GROWTH) ** 3))
                apply(model, masks)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        friction = FRICTION * (1.0 if a.without == "annealing" else math.sqrt(lr / a.lr))
        noise = math.sqrt(2 * friction * temperature / (TRAIN * lr))
        with torch.no_grad():
            for (name, w), gradient in zip(parameters.items(), gradients, strict=True):
                r = force(w, a) if name in pruned else 1.0
                signs = 2.0 * torch.randint(0, 2, w.shape, generator=generator) - 1
                b = buffers[name].mul_((1 - friction) * math.sqrt(before / lr))
                b += gradient + r * w / TRAIN - noise * signs
                b *= masks.get(name, 1)
                w -= lr * b
        before, drawn = lr, step + 1 - BURN_IN - EXPLORE - RELAX
        if drawn > 0 and drawn % THIN == 0:
            draws.append({name: w.detach().clone() for name, w in parameters.items()})
    draws = draws[-1:] if a.without == "mean" else draws
    with torch.no_grad():
        for name, w in parameters.items():
            w.copy_(torch.stack([draw[name] for draw in draws]).mean(0))
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__, "lenet")
    p.add_argument("--lr", type=float, default=0.1, help="the largest step")
    p.add_argument("--slab-variance", type=float, default=0.3)
    p.add_argument("--without", choices=PARTS, help="leave this out; the lines go to plain_parts.jsonl")
    a = p.parse_args()
    run("log-odds-in-chain", fit, a, Path(__file__).with_name("plain_parts.jsonl" if a.without else "plain.jsonl"))
