r"""Train a variational family on a network: maximise the evidence lower bound by Adam on a cosine.

The loss of a step is the mean minibatch NLL plus KL / N: an unbiased estimate of -ELBO / N at any batch size.

Short trainings need two changes to the published recipes, both off by default. The divergence of a network that starts
with narrow factors is several nats per weight: more than all data can pay for, and closing gates is the fastest way to
be rid of it. So its weight may rise from zero (`warm_up`), and the factors may widen faster than their means move
(`std_lr`).
"""

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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
    gate_lr, std_lr : float, optional
        Of gates and scales, and of the logarithms of the weights' standard deviations; `lr` if not given.
    warm_up : float
        Fraction of the steps over which the weight of the KL rises from zero to one, in [0, 1) (see `kl_weight`).
    seed : int
    on_empty : {"stop", "warn"}
        What to do when all gates of a layer close (at the end of training: warn, whatever this says).
    trace_every : int
        Steps between two records (and checks).
    bound_draws : int
        Draws in the final bound, each a pass over all data; fewer than two give it no standard error.
    """

    family: Family = field(default_factory=mean_field)
    steps: int = 10_000
    batch_size: int = 500
    lr: float = 1e-3
    gate_lr: float | None = None
    std_lr: float | None = None
    warm_up: float = 0.0
    seed: int = 0
    on_empty: OnEmpty = "stop"
    trace_every: int = 200
    bound_draws: int = 32

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "trace_every": self.trace_every, "bound_draws": self.bound_draws}
        if min(counts.values()) < 1:
            raise ValueError(f"{counts}: all must be at least 1")
        rates = {"lr": self.lr, "gate_lr": self.gate_lr, "std_lr": self.std_lr}
        for name, rate in rates.items():
            if rate is not None and not rate > 0:
                raise ValueError(f"{name} is {rate}; it must be > 0")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is {self.warm_up}; it must be in [0, 1), so that training ends on the bound")


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
        bound, error = lower_bound(network, likelihood, data, settings.bound_draws, settings.batch_size)
    return Fitted(
        settings.family.posterior(network),
        likelihood,
        data[0],
        bound,
        error,
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
        Its family has no gates, such as `mean_field()`: the decision is made.

    Raises
    ------
    ValueError
        If it has.
    """
    if getattr(settings.family, "gates", None) != "none":
        raise ValueError(f"retrain takes a family without gates, such as mean_field(), not {settings.family}")
    return fit(fitted.network("median_sampled"), data, settings, fitted.likelihood, mask=fitted.mask())


def kl_weight(progress: float, warm_up: float) -> float:
    """Weight of the KL when the fraction `progress` of the steps is done: linear up to `warm_up`, then exactly one.

    References
    ----------
    Bowman et al. (CoNLL 2016); Soenderby et al. (NeurIPS 2016); Li et al. (ICLR 2024), for sparse networks.
    """
    return progress / warm_up if progress < warm_up else 1.0


def step_loss(
    network: VariationalNetwork, likelihood: Likelihood, batch: Data, num_data: int, weight: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, mean NLL and KL of one step: loss = NLL + weight KL / N."""
    outputs, divergence = network.outputs_and_kl(batch[0])
    nll = mean_nll(likelihood, outputs, batch[1])
    return nll + weight * divergence / num_data, nll, divergence


@torch.no_grad()
def lower_bound(
    network: VariationalNetwork, likelihood: Likelihood, data: Data, draws: int = 32, batch_size: int = 1000
) -> tuple[float, float]:
    """Estimate the evidence lower bound of all data, in nats (running normalisation statistics).

    Returns
    -------
    bound, error : float
        Mean over so many draws of weights and gates, and its standard error (NaN for one draw).
    """
    network.eval()
    found = []
    for _ in range(draws):
        parts = zip(data[0].split(batch_size), data[1].split(batch_size), strict=True)
        nll = sum(float(likelihood(network(x), y).double().sum()) for x, y in parts)
        found.append(-nll - float(network.kl()))
    error = statistics.stdev(found) / math.sqrt(draws) if draws > 1 else math.nan
    return statistics.fmean(found), error


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
        progress = done / settings.steps
        for unit in network.units:
            unit.advance(progress)
        weight = kl_weight(progress, settings.warm_up)
        terms = step_loss(network, likelihood, stream.batch(done), stream.num_data, weight)
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
    watchdog.check_divergence()
    for step in tqdm(range(1, settings.steps + 1), disable=not progress, unit="step", mininterval=1):
        loss, nll, divergence = make_step()
        if step == MOVED_AFTER:
            watchdog.check_moved(step)
        if step % settings.trace_every == 0 or step == settings.steps:
            watchdog.check_loss(step, float(loss.detach()))
            watchdog.check_state(last=step == settings.steps)
            kept = sum(float(odds.sigmoid().sum()) for odds in network.log_odds()[0].values())
            trace.append({"step": step, "nll": float(nll.detach()), "kl": float(divergence.detach()), "kept": kept})
    return trace


def _optimizer(network: VariationalNetwork, likelihood: Likelihood, settings: Settings) -> torch.optim.Adam:
    logits = [p for name, p in network.named_parameters() if name.endswith("logits")]
    gates = [*logits, *(network.shared.parameters() if network.shared is not None else ())]
    stds = [factor.log_std for unit in network.units for _, factor, _ in unit.factors()]
    apart = {id(p) for p in (*gates, *stds)}
    means = [p for p in network.parameters() if p.requires_grad and id(p) not in apart]
    if isinstance(likelihood, nn.Module):
        means += list(likelihood.parameters())
    groups: dict[float, list[nn.Parameter]] = {}  # by rate: Adam's cost on a small network is a cost per group
    for parameters, lr in ((means, None), (stds, settings.std_lr), (gates, settings.gate_lr)):
        groups.setdefault(lr or settings.lr, []).extend(parameters)
    return torch.optim.Adam([{"params": group, "lr": lr} for lr, group in groups.items()], fused=True)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators, and put them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
