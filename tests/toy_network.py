"""A small network with gradients that are a function of the step: what the samplers' bookkeeping is tested on."""

from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.samplers import Sampler

SAMPLER_NAMES = tuple(choices.OURS["sampler"])
WITH_MOMENTUM = tuple(name for name in SAMPLER_NAMES if name != "sgld")


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def make_sampler(kind: str, params: Any, **settings: Any) -> Sampler:
    """A sampler by name, "released" being the released form of adaptive_sghmc; momentum is dropped for sgld."""
    if kind == "released":
        kind, settings = "adaptive_sghmc", {"form": "released", **settings}
    if kind == "sgld":
        settings.pop("momentum", None)
    return choices.load("sampler", kind)(params, **{"lr": 0.1, "num_data": 20, "seed": 0, **settings})


def set_gradients(model: nn.Module, step: int) -> Tensor:
    """Gradients of a mean squared error on a batch that depends on the step only."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(step), dtype=next(model.parameters()).dtype)
    model.zero_grad()
    loss = (model(x) - x[:, :1].sin()).square().mean()
    loss.backward()
    return loss.detach()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> nn.Module:
    for t in range(start, start + steps):
        set_gradients(model, t)
        optimizer.step()
    return model


def assert_equal_parameters(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


def half_mask(model: nn.Module) -> dict[str, Tensor]:
    """Every other weight of every matrix."""
    return {n: torch.arange(p.numel()).view_as(p) % 2 == 0 for n, p in model.named_parameters() if p.ndim >= 2}


def momentum_square(sampler: Sampler) -> tuple[float, int]:
    """The square m' M^-1 m of the momentum of all parameters, and its dimension."""
    squares = sampler.momentum_squares().values()
    return sum((square for square, _ in squares), 0.0), sum(dimension for _, dimension in squares)
