r"""Dhahri et al.'s SpaM with optimal posterior damage (OPD) in plain torch: diagonal, one prior precision per weight.

    python benchmarks/opponents/spam.py --data DIR

Adam trains  mean NLL + (1 / N) sum_k d_k w_k^2 / 2.  At n evenly spaced steps, the last of them the end, the curvature

    h_k = sum_n (d log p(y_n | x_n, w) / d w_k)^2    with y_n drawn from the network's own prediction,

(an unbiased estimate of the diagonal of the Gauss-Newton matrix) is summed over a share of the images and scaled to all
of them, and 100 steps of Adam in log d raise the Laplace evidence at fixed w,

    log p(D | d) = LL - 1/2 sum_k [ log(h_k + d_k) - log d_k + d_k w_k^2 ].

At the end the weights with the smallest damage (h_k + d_k) w_k^2 go, with no training afterwards. The curvatures count
in the budget. One JSON line for each seed goes to `spam.jsonl`.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import BATCH, EPOCHS, TRAIN, Data, apply, arguments, global_mask, minibatches, run, weights
from torch import Tensor, nn


def columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What each weight of a unit is multiplied with: images x fan-in x positions (one in a linear layer)."""
    if isinstance(layer, nn.Linear):
        return inputs.unsqueeze(-1)
    return F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def curvature(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """h of every parameter from these images, scaled to all.

    In a layer with inputs a and gradients g at positions p, each image adds (sum_p g_p a_p)^2.
    """
    found = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    passed: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, inputs: Tensor, outputs: Tensor) -> None:
        passed[name] = inputs.detach(), outputs

    hooks = [m.register_forward_hook(lambda _, i, o, name=name: keep(name, i[0], o)) for name, m in layers.items()]
    for images in x.split(500):
        outputs = model(images)
        drawn = torch.distributions.Categorical(logits=outputs.detach()).sample()
        loss = F.cross_entropy(outputs, drawn, reduction="sum")
        gradients = torch.autograd.grad(loss, [out for _, out in passed.values()])
        for (name, (a, _)), g in zip(passed.items(), gradients, strict=True):
            g = g.reshape(*g.shape[:2], -1)
            each = g @ columns(layers[name], a).transpose(1, 2)
            found[f"{name}.weight"] += each.square().sum(0).view_as(layers[name].weight) * (TRAIN / len(x))
            found[f"{name}.bias"] += g.sum(2).square().sum(0) * (TRAIN / len(x))
    for hook in hooks:
        hook.remove()
    return found


class Prior:
    """The log precisions, and the optimiser that raises the evidence; its state lasts."""

    def __init__(self, model: nn.Module) -> None:
        self.log = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
        self.adam = torch.optim.Adam(self.log.values(), lr=0.1)

    def update(self, model: nn.Module, h: dict[str, Tensor], steps: int = 100) -> None:
        """Climb; the gradient of the evidence is -[d / (h + d) - 1 + d w^2] / 2."""
        squares = {name: p.detach().double().square() for name, p in model.named_parameters()}
        for _ in range(steps):
            for name, log in self.log.items():
                d = log.exp()
                log.grad = (d / (h[name] + d) - 1 + d * squares[name]) / 2
            self.adam.step()

    def precision(self) -> dict[str, Tensor]:
        """The d of every parameter."""
        return {name: log.exp() for name, log in self.log.items()}


def fit(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """Train, update the prior, prune; see `plain.Fit`."""
    (x, y), count = data, round(a.curvature_share * TRAIN)
    steps = round((EPOCHS * TRAIN - a.updates * count) / BATCH)
    optimizer, prior, batches = torch.optim.Adam(model.parameters(), lr=a.lr), Prior(model), minibatches(generator)
    decay = {name: d.float() / TRAIN for name, d in prior.precision().items()}
    for step in range(1, steps + 1):
        batch = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        for name, p in model.named_parameters():
            p.grad += decay[name] * p.detach()
        optimizer.step()
        if (steps - step) % (steps // a.updates) == 0 and step >= steps // a.updates:
            h = curvature(model, x[torch.randperm(TRAIN, generator=generator)[:count]])
            prior.update(model, h)
            decay = {name: d.float() / TRAIN for name, d in prior.precision().items()}
    precision = prior.precision()
    damage = {name: (h[name] + precision[name]) * w.detach().square() for name, w in weights(model).items()}
    apply(model, global_mask(damage, a.sparsity))
    return steps * BATCH + a.updates * count


if __name__ == "__main__":
    p = arguments(__doc__)
    p.add_argument("--updates", type=int, default=7)
    p.add_argument("--curvature-share", type=float, default=0.1)
    p.add_argument("--lr", type=float, default=1e-3)
    run("spam-opd", fit, p.parse_args(), Path(__file__).with_suffix(".jsonl"))
