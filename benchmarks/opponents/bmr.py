r"""Marković, Friston and Kiebel's Bayesian model reduction with a spike and slab (BMR-S&S) in plain torch.

    python benchmarks/opponents/bmr.py --data DIR

    w = gain * scale_l * v,  v ~ N(0, 1),  q(v) = N(m, s^2);  scale_l = c_l / 10 (c_l in the last layer),
    c_l^-2 ~ Gamma(2, 2), log-normal factors;   loss = mean NLL + KL / N by AdaBelief, one draw for each minibatch.

After a warm-up, and between rounds, a weight of a hidden layer goes for ever (gain 0) where its log odds, zeta - dF,
are negative; a bias is a weight of its layer. dF is the change of the log evidence at its removal (Savage-Dickey), and
zeta the expected prior log odds of the weights that are left in its layer:

    dF_i = log q(v_i = 0) - log p(v_i = 0) = -log s_i - m_i^2 / (2 s_i^2),
    q_i = sigmoid(zeta - dF_i),   zeta = digamma(1 + sum q) - digamma(1 + sum (1 - q))   (four times, from zeta = 0).

For a given sparsity the weights with the smallest odds go at the end, over all layers, those pruned before first; the
sparsity 0 is the method's own rule. One JSON line for each seed goes to `bmr.jsonl`.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import BATCH, STEPS, TRAIN, Data, apply, arguments, global_mask, minibatches, run, weights
from torch import Tensor, nn
from torch.func import functional_call


class AdaBelief:
    """Adam with the squared deviation of the gradient from its average in the denominator (Zhuang et al. 2020)."""

    def __init__(self, parameters: list[Tensor], lr: float) -> None:
        self.parameters, self.lr, self.steps = parameters, lr, 0
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def step(self) -> None:
        """Move, and clear the gradients."""
        self.steps += 1
        for p, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            square.mul_(0.999).add_((p.grad - mean).square(), alpha=0.001).add_(1e-16)
            mean.mul_(0.9).add_(p.grad, alpha=0.1)
            size = (square / (1 - 0.999**self.steps)).sqrt() + 1e-16
            p -= self.lr * mean / (1 - 0.9**self.steps) / size
            p.grad = None


class Posterior:
    """Factors of all parameters and of the scale of each layer."""

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        shapes = {name: p.shape for name, p in model.named_parameters()}
        self.layers = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
        narrow = math.log(math.expm1(0.1))  # softplus of it is 0.1
        self.m = {name: self._start(shape, generator) for name, shape in shapes.items()}
        self.rho = {name: torch.full(shape, narrow).requires_grad_() for name, shape in shapes.items()}
        self.gain = {name: torch.ones(shape) for name, shape in shapes.items()}
        self.log_precision = self._start((len(self.layers),), generator)  # mean of log c^-2
        self.rho_precision = torch.full((len(self.layers),), narrow).requires_grad_()

    @staticmethod
    def _start(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return (4 * torch.rand(shape, generator=generator) - 2).requires_grad_()

    def parameters(self) -> list[Tensor]:
        """What training moves."""
        return [*self.m.values(), *self.rho.values(), self.log_precision, self.rho_precision]

    def of(self, layer: str) -> list[str]:
        """The parameters of a layer."""
        return [name for name in self.m if name.rpartition(".")[0] == layer]

    def _scales(self, noise: Tensor) -> dict[str, Tensor]:
        c = (-0.5 * (self.log_precision + F.softplus(self.rho_precision) * noise)).exp()
        values = [0.1 * value for value in c[:-1]] + [c[-1]]
        return {name: value for layer, value in zip(self.layers, values, strict=True) for name in self.of(layer)}

    def draw(self) -> dict[str, Tensor]:
        """One network."""
        scale = self._scales(torch.randn_like(self.log_precision))
        noisy = {n: m + F.softplus(self.rho[n]) * torch.randn_like(m) for n, m in self.m.items()}
        return {n: scale[n] * self.gain[n] * v for n, v in noisy.items()}

    def kl(self) -> Tensor:
        """KL of all factors; a pruned weight has none."""
        total = torch.zeros(())
        for name, m in self.m.items():
            s = F.softplus(self.rho[name])
            total = total + (self.gain[name] * ((s.square() + m.square() - 1) / 2 - s.log())).sum()
        m, s = self.log_precision, F.softplus(self.rho_precision)
        constant = math.lgamma(2) - 2 * math.log(2) - 0.5 * math.log(2 * math.pi * math.e)
        return total + (constant - 2 * m + 2 * (m + s.square() / 2).exp() - s.log()).sum()

    @torch.no_grad()
    def odds(self) -> dict[str, Tensor]:
        """Log odds of keeping each weight; of those that are gone, far below."""
        found = {}
        for layer in self.layers:
            parts = self.of(layer)
            s = {n: F.softplus(self.rho[n]).double() for n in parts}
            change = {n: -s[n].log() - self.m[n].double().square() / (2 * s[n].square()) for n in parts}
            alive = torch.cat([change[n][self.gain[n] > 0] for n in parts])
            zeta = torch.zeros((), dtype=torch.float64)
            for _ in range(4):
                q = (zeta - alive).sigmoid()
                zeta = (1 + q.sum()).digamma() - (1 + (1 - q).sum()).digamma()
            found |= {n: torch.where(self.gain[n] > 0, zeta - change[n], -torch.inf) for n in parts}
        return found

    def reduce(self) -> None:
        """Prune the hidden layers."""
        for name, odds in self.odds().items():
            if name not in self.of(self.layers[-1]):
                self.gain[name] *= odds >= 0

    @torch.no_grad()
    def means(self) -> dict[str, Tensor]:
        """Means of all weights."""
        spread = F.softplus(self.rho_precision).square() / 8  # E c = exp(-mean / 2 + variance / 8)
        scale = self._scales(torch.zeros_like(spread))
        more = dict(zip(self.layers, spread.exp(), strict=True))
        return {n: scale[n] * more[n.rpartition(".")[0]] * self.gain[n] * m for n, m in self.m.items()}


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Warm up, then reduce and train in rounds; see `plain.Fit`."""
    (x, y), batches, posterior = data, minibatches(generator), Posterior(model, generator)
    optimizer, each = AdaBelief(posterior.parameters(), a.lr), round((1 - a.warm_up) * STEPS) // a.rounds
    first = STEPS - a.rounds * each
    for step in range(STEPS):
        if step >= first and (step - first) % each == 0:
            posterior.reduce()
        batch = next(batches)
        nll = F.cross_entropy(functional_call(model, posterior.draw(), (x[batch],)), y[batch])
        (nll + posterior.kl() / TRAIN).backward()
        optimizer.step()
    with torch.no_grad():
        for (_, p), mean in zip(model.named_parameters(), posterior.means().values(), strict=True):
            p.copy_(mean)
    if a.sparsity:
        odds = posterior.odds()
        apply(model, global_mask({n: odds[n].clamp_min(-1e30) for n in weights(model)}, a.sparsity))
    return STEPS * BATCH


if __name__ == "__main__":
    p = arguments(__doc__)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--warm-up", type=float, default=0.2, help="share of the steps")
    p.add_argument("--lr", type=float, default=1e-2)
    run("bmr-spike-slab", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
