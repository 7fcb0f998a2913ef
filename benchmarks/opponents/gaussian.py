r"""What the variational opponents share: normal factors, drawn once for each minibatch, and the survivors' training.

Each weight has a factor with KL(N(m, s^2) || N(0, s0^2)) = log(s0 / s) - 1/2 + (s^2 + m^2) / (2 s0^2), and is drawn as
w = m + s eps with one eps for each step; the loss is mean NLL + (weight of the KL) * (sum of KL) / N.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from plain import TRAIN, Data, Masks, cosine, weights
from torch import Tensor, nn
from torch.func import functional_call

Drawn = dict[str, Tensor]


class Factors(nn.Module):
    """Normal factors of all parameters of a network, which start at its weights, and narrow."""

    def __init__(self, model: nn.Module, std: float = 0.01) -> None:
        super().__init__()
        self.names = [name for name, _ in model.named_parameters()]
        self.means = nn.ParameterList([p.detach().clone() for p in model.parameters()])
        self.log_stds = nn.ParameterList([torch.full_like(p, math.log(std)) for p in model.parameters()])

    def draw(self) -> Drawn:
        """One draw of each parameter."""
        factors = zip(self.names, self.means, self.log_stds, strict=True)
        return {name: m + s.exp() * torch.randn_like(m) for name, m, s in factors}

    def kl(self, prior_std: float) -> Drawn:
        """KL of each entry."""
        factors, log_prior = zip(self.names, self.means, self.log_stds, strict=True), math.log(prior_std)
        return {n: log_prior - s - 0.5 + ((2 * s).exp() + m.square()) / (2 * prior_std**2) for n, m, s in factors}


def ascend(
    data: Data,
    batches: Iterator[Tensor],
    bound: Callable[[Tensor], tuple[Tensor, Tensor]],
    groups: list[tuple[list[nn.Parameter], float]],
    steps: int,
    warm_up: float,
) -> None:
    """Adam on the evidence bound: `bound` gives outputs and the KL, which fades in over a share of the steps."""
    optimizer = torch.optim.Adam([{"params": parameters, "lr": rate} for parameters, rate in groups])
    for step in range(steps):
        done, batch = step / steps, next(batches)
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = cosine(rate, 0.0, done)
        outputs, divergence = bound(data[0][batch])
        nll = F.cross_entropy(outputs, data[1][batch])
        optimizer.zero_grad()
        (nll + min(1.0, done / warm_up if warm_up else 1.0) * divergence / TRAIN).backward()
        optimizer.step()


def survivors(
    model: nn.Module, masks: Masks, data: Data, batches: Iterator[Tensor], steps: int, a: argparse.Namespace
) -> None:
    """Train what a mask keeps as a normal posterior, from the network's weights; leave the means in the network."""
    factors = Factors(model)

    def bound(x: Tensor) -> tuple[Tensor, Tensor]:
        kept = {name: masks.get(name, torch.ones(())) for name in factors.names}
        divergence = sum((part * kept[name]).sum() for name, part in factors.kl(a.prior_std).items())
        drawn = {name: w * kept[name] for name, w in factors.draw().items()}
        return functional_call(model, drawn, (x,)), divergence

    ascend(data, batches, bound, [(list(factors.means), a.lr), (list(factors.log_stds), a.std_lr)], steps, 0.0)
    put(model, {name: m * masks.get(name, 1) for name, m in zip(factors.names, factors.means, strict=True)})


@torch.no_grad()
def put(model: nn.Module, values: Drawn) -> None:
    """Write these weights into a network."""
    for name, p in model.named_parameters():
        p.copy_(values[name])


def straight_through(logits: Tensor, temperature: float = 0.5) -> Tensor:
    """One draw of gates, z = 1[y > 1/2] with y = sigmoid((logits + logistic noise) / T); backwards dz = dy."""
    uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    y = ((logits + uniform.logit()) / temperature).sigmoid()
    return (y > 0.5).float() + y - y.detach()


def gate_kl(logits: Tensor, inclusion: float) -> Tensor:
    """KL(Bernoulli(g) || Bernoulli(lambda)) of each gate, g = sigmoid(logits)."""
    g, odds = logits.sigmoid(), math.log(inclusion) - math.log1p(-inclusion)
    return g * (logits - odds) + F.logsigmoid(-logits) - math.log1p(-inclusion)


def matrices(model: nn.Module) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer."""
    return [(w[0].numel(), len(w)) for w in weights(model).values()]


def options(p: argparse.ArgumentParser) -> None:
    """The settings of the comparison's variational methods."""
    p.add_argument("--prior-std", type=float, default=0.1)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--std-lr", type=float, default=1e-2)
    p.add_argument("--gate-lr", type=float, default=3e-2)
    p.add_argument("--warm-up", type=float, default=0.5, help="share of the first part over which the KL fades in")
    p.add_argument("--fine-tune", type=float, default=0.25, help="share of all steps, for the survivors")
