r"""Bai, Song and Cheng's sparse variational network (SVBNN) in plain torch: a spike and slab on every single weight.

    python benchmarks/opponents/svbnn.py --data DIR

    w = z (m + s eps),   z ~ Bernoulli(g),   prior z ~ Bernoulli(lambda), w | z = 1 ~ N(0, s0^2), w | z = 0 = 0,
    KL = g KL(N(m, s^2) || N(0, s0^2)) + KL(Bernoulli(g) || Bernoulli(lambda)),

with the gates relaxed (binary concrete, T = 1/2, straight through), one draw for each minibatch, and the authors' rule

    -log lambda = log P + 0.1 [(L + 1) log(widest) + log(sqrt(N) inputs)]    (P parameters, L layers).

The first part of the budget trains means, deviations and gates; then the weights with the largest g stay, and train on
as a plain normal posterior from their E w = g m. `--gates integrated` is another estimator, for the perceptron: outputs
are normal, with the mean and the variance g (s^2 + (1 - g) m^2) of each weight. One JSON line for each seed goes to
`svbnn.jsonl`.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from gaussian import Factors, ascend, gate_kl, matrices, options, put, straight_through, survivors
from plain import BATCH, STEPS, TRAIN, Data, apply, arguments, global_mask, minibatches, run, weights
from torch import Tensor, nn
from torch.func import functional_call


def inclusion(model: nn.Module) -> float:
    """The authors' lambda."""
    layers, count = matrices(model), sum(p.numel() for p in model.parameters())
    widest = max(outputs for _, outputs in layers[:-1])
    depth = (len(layers) + 1) * math.log(widest) + math.log(math.sqrt(TRAIN) * layers[0][0])
    return math.exp(-math.log(count) - 0.1 * depth)


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Gates, then survivors; see `plain.Fit`."""
    last, batches, rate = round(a.fine_tune * STEPS), minibatches(generator), inclusion(model) ** a.inclusion_power
    factors, start = Factors(model), math.log(0.99 / 0.01)
    logits = {name: nn.Parameter(torch.full_like(w, start)) for name, w in weights(model).items()}

    def divergence() -> Tensor:
        kl = factors.kl(a.prior_std)
        for name, theta in logits.items():
            kl[name] = theta.sigmoid() * kl[name] + gate_kl(theta, rate)
        return sum(part.sum() for part in kl.values())

    def relaxed(x: Tensor) -> tuple[Tensor, Tensor]:
        drawn = factors.draw()
        for name, theta in logits.items():
            drawn[name] = straight_through(theta) * drawn[name]
        return functional_call(model, drawn, (x,)), divergence()

    def integrated(x: Tensor) -> tuple[Tensor, Tensor]:
        m, s = (dict(zip(factors.names, part, strict=True)) for part in (factors.means, factors.log_stds))
        for index, module in enumerate(model):
            if not isinstance(module, nn.Linear):
                x = module(x)
                continue
            name, bias = f"{index}.weight", f"{index}.bias"
            g, square = logits[name].sigmoid(), m[name].square()
            variance = F.linear(x.square(), g * ((2 * s[name]).exp() + (1 - g) * square), (2 * s[bias]).exp())
            x = F.linear(x, g * m[name], m[bias]) + variance.clamp(min=1e-16).sqrt() * torch.randn_like(variance)
        return x, divergence()

    groups = [(list(factors.means), a.lr), (list(factors.log_stds), a.std_lr), (list(logits.values()), a.gate_lr)]
    ascend(data, batches, integrated if a.gates == "integrated" else relaxed, groups, STEPS - last, a.warm_up)
    masks = global_mask({name: theta.detach() for name, theta in logits.items()}, a.sparsity)
    means = dict(zip(factors.names, factors.means, strict=True))
    put(model, {name: m * logits[name].sigmoid() if name in logits else m for name, m in means.items()})
    apply(model, masks)
    survivors(model, masks, data, batches, last, a)
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__)
    options(p)
    p.add_argument("--inclusion-power", type=float, default=1.0, help="lambda is the authors' to this power")
    p.add_argument("--gates", choices=("relaxed", "integrated"), default="relaxed")
    run("svbnn", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
