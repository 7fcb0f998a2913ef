r"""Train a variational family on a network: maximise the evidence lower bound by Adam on a cosine.

The loss of a step is the mean minibatch NLL plus KL / N: an unbiased estimate of -ELBO / N at any batch size.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.variational.families import Family, mean_field
from sgmcmc_prune.baselines.variational.network import VariationalNetwork, bayesianise
from sgmcmc_prune.baselines.variational.posterior import Fitted
from sgmcmc_prune.baselines.variational.watchdogs import MOVED_AFTER, OnEmpty, Watchdog
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.likelihoods import Likelihood, categorical, mean_nll
from sgmcmc_prune.pruning.masks import Mask

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    family : Family
    steps, batch_size : int
    lr : float
        Adam's learning rate at the start of the cosine, which ends at zero.
    gate_lr : float, optional
        Of gates and scales; `lr` if not given.
    seed : int
    on_empty : {"stop", "warn"}
        What to do when all gates of a layer close.
    trace_every : int
        Steps between two records (and checks).
    """

    family: Family = field(default_factory=mean_field)
    steps: int = 10_000
    batch_size: int = 500
    lr: float = 1e-3
    gate_lr: float | None = None
    seed: int = 0
    on_empty: OnEmpty = "stop"
    trace_every: int = 200

    def __post_init__(self) -> None:
        if self.steps < 1 or self.trace_every < 1:
            raise ValueError(f"steps is {self.steps} and trace_every {self.trace_every}; both must be at least 1")
        if not (self.lr > 0 and (self.gate_lr is None or self.gate_lr > 0)):
            raise ValueError(f"lr is {self.lr} and gate_lr {self.gate_lr}; both must be > 0")


class LearnedGaussian(nn.Module):
    """Gaussian likelihood whose noise standard deviation is learned with the network (by maximum likelihood)."""

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor(math.log(std)))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each example, (n,), from outputs (n,) or (n, 1)."""
        residual = outputs.reshape(len(targets)) - targets.reshape(len(targets))
        return 0.5 * (residual / self.log_std.exp()).square() + self.log_std + 0.5 * math.log(2 * math.pi)


def fit(
    model: nn.Module,
    data: Data,
    settings: Settings,
    likelihood: Likelihood = categorical,
    *,
    mask: Mask | None = None,
    progress: bool = False,
) -> Fitted:
    """Train the variational counterpart of a network; the means start at the network's own weights.

    Parameters
    ----------
    model : Module
        Left as it is.
    data : (inputs, targets)
        The N training examples, on the model's device.
    settings : Settings
    likelihood : Likelihood
        A module's parameters (a learned noise) are trained, too, in a copy.
    mask : mask, optional
        Weights to fix at zero: retrains the survivors of an earlier decision.
    progress : bool
        Show a bar.

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        If a layer cannot be converted, or a batch is larger than the data.
    RunError
        If training diverges, or a watchdog barks (see `watchdogs`).
    """
    started = time.perf_counter()
    network, likelihood = bayesianise(model, settings.family), copy.deepcopy(likelihood)
    network.mask_weights(mask or {})
    stream = MinibatchStream(*data, settings.batch_size, settings.seed, 0)
    with _seeded(settings.seed, data[0].device):
        trace = _train(network, stream, likelihood, settings, progress)
        bound = lower_bound(network, likelihood, data, settings.batch_size)
    return Fitted(
        settings.family.posterior(network),
        likelihood,
        data[0],
        bound,
        settings.steps * settings.batch_size,
        time.perf_counter() - started,
        trace,
    )


def retrain(fitted: Fitted, data: Data, settings: Settings) -> Fitted:
    """Train the survivors of a method's own decision further, from the median model's means and under its mask.

    Parameters
    ----------
    fitted : Fitted
    data : (inputs, targets)
    settings : Settings
        Its family should have no gates, such as `mean_field()`: the decision is made.
    """
    return fit(fitted.network("median_sampled"), data, settings, fitted.likelihood, mask=fitted.mask())


def step_loss(
    network: VariationalNetwork, likelihood: Likelihood, batch: Data, num_data: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, mean NLL and KL of one step: loss = NLL + KL / N."""
    nll, divergence = mean_nll(likelihood, network(batch[0]), batch[1]), network.kl()
    return nll + divergence / num_data, nll, divergence


@torch.no_grad()
def lower_bound(network: VariationalNetwork, likelihood: Likelihood, data: Data, batch_size: int = 1000) -> float:
    """One-draw estimate of the evidence lower bound of all data, in nats (running normalisation statistics)."""
    network.eval()
    parts = zip(data[0].split(batch_size), data[1].split(batch_size), strict=True)
    nll = sum(float(likelihood(network(x), y).double().sum()) for x, y in parts)
    return -nll - float(network.kl())


def stepper(
    network: VariationalNetwork, stream: MinibatchStream, likelihood: Likelihood, settings: Settings
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """A function that makes one step of the training each time it is called, and returns what `step_loss` does."""
    optimizer = _optimizer(network, likelihood, settings)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    batches = itertools.count()
    network.train()

    def step() -> tuple[Tensor, Tensor, Tensor]:
        done = next(batches)
        for unit in network.units:
            unit.advance(done / settings.steps)
        terms = step_loss(network, likelihood, stream.batch(done), stream.num_data)
        optimizer.zero_grad()
        terms[0].backward()
        optimizer.step()
        cosine.step()
        network.constrain()
        return terms

    return step


def _train(
    network: VariationalNetwork, stream: MinibatchStream, likelihood: Likelihood, settings: Settings, progress: bool
) -> list[dict[str, float]]:
    from tqdm import tqdm  # not at the top: the families must import without it

    watchdog, trace = Watchdog(network, settings.on_empty), []
    make_step = stepper(network, stream, likelihood, settings)
    for step in tqdm(range(1, settings.steps + 1), disable=not progress, unit="step", mininterval=1):
        loss, nll, divergence = make_step()
        if step == MOVED_AFTER:
            watchdog.check_moved(step)
        if step % settings.trace_every == 0 or step == settings.steps:
            watchdog.check_loss(step, float(loss.detach()))
            watchdog.check_state()
            kept = sum(float(odds.sigmoid().sum()) for odds in network.log_odds()[0].values())
            trace.append({"step": step, "nll": float(nll.detach()), "kl": float(divergence.detach()), "kept": kept})
    return trace


def _optimizer(network: VariationalNetwork, likelihood: Likelihood, settings: Settings) -> torch.optim.Adam:
    selecting = {id(p) for p in _gates_and_scales(network)}
    weights = [p for p in network.parameters() if id(p) not in selecting]
    if isinstance(likelihood, nn.Module):
        weights += list(likelihood.parameters())
    groups: list[dict[str, Any]] = [{"params": weights}]
    if selecting:
        gates = [p for p in network.parameters() if id(p) in selecting]
        groups.append({"params": gates, "lr": settings.gate_lr or settings.lr})
    return torch.optim.Adam(groups, lr=settings.lr, fused=True)


def _gates_and_scales(network: VariationalNetwork) -> list[nn.Parameter]:
    scales = [*network.scales.parameters(), *(network.shared.parameters() if network.shared is not None else ())]
    return [p for name, p in network.named_parameters() if name.endswith("logits")] + scales


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators, and put them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
