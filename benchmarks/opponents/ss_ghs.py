r"""Jantre, Bhattacharya and Maiti's spike-and-slab group horseshoe (SS-GHS) in plain torch: gates and scales of nodes.

    python benchmarks/opponents/ss_ghs.py --network mlp --data DIR

    w_j = z_j s~_j (m_j + s_j eps),    z_j ~ Bernoulli(g_j), prior Bernoulli(lambda);   m + s eps has prior N(0, s0^2),
    s~^2 = c^2 t^2 / (c^2 + t^2),   t_j = t_g t'_j,   t_g, t'_j ~ C+(0, 1) = sqrt(a b),   c^2 ~ InvGamma(2, 6),
    a ~ Gamma(1/2, 1), b ~ InvGamma(1/2, 1), all of a, b, c^2 with log-normal factors LN(m, s^2):

    KL(LN || Gamma(p, q)) = logGamma(p) - p log q - p m + q e^(m + s^2 / 2) - log s - log(2 pi e) / 2

(InvGamma: with -m for m). A node's slab counts g_j times, its scale always; the output layer has scales and no gates.
The authors' code fixes c = 1 (`--slab 1`). Gates are relaxed as in `svbnn.py`, and

    -log lambda_l = log m + 1e-9 (k + 1) [(k + 1)^2 + sum_(i != l) log(k_i + 1) + L + log m + log(k + 1) + log N
                    + log sum_i (L + 1)^2 (log N + log(L + 1) + log(k_i + 1) + log m_i)]

for k inputs and m nodes of layer l, and L hidden layers. After the first part of the budget the nodes with the smallest
g go, with the weights that read them, until the sparsity is reached, and what is left trains on as a plain normal
posterior. A filter is a node. One JSON line for each seed goes to `ss_ghs.jsonl`.
"""

import argparse
import bisect
import math
from pathlib import Path

import torch
from gaussian import Drawn, Factors, ascend, gate_kl, matrices, options, put, straight_through, survivors
from plain import BATCH, STEPS, TRAIN, Data, Masks, apply, arguments, minibatches, run, weights
from torch import Tensor, nn
from torch.func import functional_call


def inclusion(layers: list[tuple[int, int]]) -> list[float]:
    """The authors' lambda of each hidden layer."""
    hidden, log_n, rates = len(layers) - 1, math.log(TRAIN), []
    u = sum((hidden + 1) ** 2 * (log_n + math.log(hidden + 1) + math.log(k + 1) + math.log(m)) for k, m in layers)
    for index, (k, m) in enumerate(layers[:-1]):
        others = sum(math.log(width + 1) for i, (width, _) in enumerate(layers) if i != index)
        theta = (k + 1) ** 2 + others + hidden + math.log(m) + math.log(k + 1) + log_n + math.log(u)
        rates.append(math.exp(-math.log(m) - 1e-9 * (k + 1) * theta))
    return rates


class LogNormals(nn.Module):
    """Log-normal factors of some variables with one gamma prior."""

    def __init__(self, count: int, shape: float, rate: float, start: float = 0.0) -> None:
        super().__init__()
        self.shape, self.rate = shape, rate
        self.mean = nn.Parameter(torch.full((count,), start))
        self.log_std = nn.Parameter(torch.full((count,), math.log(0.01)))

    def draw(self) -> Tensor:
        """Draw the logarithms."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def kl(self, sign: int = 1) -> Tensor:
        """KL from the gamma prior, or with the sign -1 from the inverse gamma."""
        p, q, m = self.shape, self.rate, sign * self.mean
        constant = math.lgamma(p) - p * math.log(q) - 0.5 * math.log(2 * math.pi * math.e)
        return (constant - p * m + q * (m + 0.5 * (2 * self.log_std).exp()).exp() - self.log_std).sum()


def node_masks(model: nn.Module, odds: list[Tensor], sparsity: float) -> Masks:
    """Remove the fewest nodes, smallest odds first, that reach a sparsity with the weights that read them."""
    names, order = list(weights(model)), torch.cat(odds).sort().values

    def without(count: int) -> tuple[Masks, float]:
        masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights(model).items()}
        for index, layer in enumerate(odds):
            masks[names[index]][layer <= order[count - 1]] = False
            masks[names[index + 1]][:, layer <= order[count - 1]] = False
        kept = torch.cat([m.flatten() for m in masks.values()])
        return masks, 1 - float(kept.double().mean())

    count = bisect.bisect_left(range(1, len(order)), sparsity, key=lambda n: without(n)[1]) + 1
    return without(count)[0]


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Gates and scales, then survivors; see `plain.Fit`."""
    last, batches, layers = round(a.fine_tune * STEPS), minibatches(generator), matrices(model)
    factors, names, sizes = Factors(model), list(weights(model)), [m for _, m in layers]
    start = math.log(0.99 / 0.01)
    logits = nn.ParameterList([torch.full((m,), start) for m in sizes[:-1]])
    rates = [rate**a.inclusion_power for rate in inclusion(layers)]
    # The global scale is the last entry.
    gamma, inverse = (LogNormals(sum(sizes) + 1, 0.5, 1.0) for _ in range(2))
    slab = LogNormals(1, 2.0, 6.0, math.log(6.0))

    def scales(log_scales: Tensor, log_slab: Tensor) -> tuple[Tensor, ...]:
        log_t = log_scales[:-1] + log_scales[-1]
        return (log_slab + log_t - 0.5 * torch.logaddexp(2 * log_slab, 2 * log_t)).exp().split(sizes)

    def scaled(drawn: Drawn, values: tuple[Tensor, ...], gates: list[Tensor]) -> Drawn:
        for index, name in enumerate(names):
            factor = values[index] * gates[index] if index < len(gates) else values[index]
            for key in (name, name.replace("weight", "bias")):
                drawn[key] = drawn[key] * factor.view(-1, *[1] * (drawn[key].ndim - 1))
        return drawn

    def bound(x: Tensor) -> tuple[Tensor, Tensor]:
        log_slab = torch.zeros(1) if a.slab else 0.5 * slab.draw()
        if a.slab:
            log_slab = log_slab + math.log(a.slab)
        values = scales(0.5 * (gamma.draw() + inverse.draw()), log_slab)
        drawn = scaled(factors.draw(), values, [straight_through(theta) for theta in logits])
        total, kl = gamma.kl() + inverse.kl(-1) + (0.0 if a.slab else slab.kl(-1)), factors.kl(a.prior_std)
        for index, name in enumerate(names):
            nodes = kl[name].flatten(1).sum(1) + kl[name.replace("weight", "bias")]
            if index < len(logits):
                theta = logits[index]
                nodes = theta.sigmoid() * nodes + gate_kl(theta, rates[index])
            total = total + nodes.sum()
        return functional_call(model, drawn, (x,)), total

    others = [*logits, *gamma.parameters(), *inverse.parameters(), *([] if a.slab else slab.parameters())]
    groups = [(list(factors.means), a.lr), (list(factors.log_stds), a.std_lr), (others, a.gate_lr)]
    ascend(data, batches, bound, groups, STEPS - last, a.warm_up)
    with torch.no_grad():
        log_slab = torch.tensor([math.log(a.slab)]) if a.slab else 0.5 * slab.mean
        values = scales(0.5 * (gamma.mean + inverse.mean), log_slab)
        means = dict(zip(factors.names, [m.detach().clone() for m in factors.means], strict=True))
        put(model, scaled(means, values, [theta.sigmoid() for theta in logits]))
    masks = node_masks(model, [theta.detach() for theta in logits], a.sparsity)
    apply(model, masks)
    survivors(model, masks, data, batches, last, a)
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__)
    options(p)
    p.add_argument("--inclusion-power", type=float, default=1.0, help="lambda is the authors' to this power")
    p.add_argument("--slab", type=float, default=0.0, help="c; 0 learns it")
    run("ss-ghs", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
