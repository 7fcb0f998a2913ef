r"""Train a variational family on a network: maximise the evidence lower bound by Adam on a cosine.

The loss of a step is the mean minibatch NLL plus KL / N: an unbiased estimate of -ELBO / N at any batch size.

Short trainings need two changes to the published recipes, both off by default. The divergence of a network that starts
with narrow factors is several nats per weight: more than all data can pay for, and closing gates is the fastest way to
be rid of it. So its weight may rise from zero (`warm_up`), and the factors may widen faster than their means move
(`std_lr`).
"""

import copy
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.training import Trainer
from sgmcmc_prune.baselines.variational.families import Family, mean_field
from sgmcmc_prune.baselines.variational.network import VariationalNetwork, bayesianise
from sgmcmc_prune.baselines.variational.posterior import VariationalFit, as_fit
from sgmcmc_prune.baselines.variational.watchdogs import MOVED_AFTER, OnEmpty, Watchdog
from sgmcmc_prune.data.batches import MinibatchStream, TrainSet, minibatches
from sgmcmc_prune.likelihoods import Likelihood, categorical, mean_nll
from sgmcmc_prune.machine.progress import counted
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
    draws : int
        Networks averaged in a prediction.
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
    draws: int = 10

    def __post_init__(self) -> None:
        counts = {n: getattr(self, n) for n in ("steps", "trace_every", "bound_draws", "draws")}
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
    data: TrainSet,
    settings: Settings,
    likelihood: Likelihood = categorical,
    *,
    mask: Mask | None = None,
    progress: bool = False,
) -> VariationalFit:
    """Train the variational counterpart of a network; the means start at the network's own weights.

    Parameters
    ----------
    model : Module
        Left as it is.
    data : TrainSet
        The N training examples, inputs and targets, on the model's device.
    settings : Settings
    likelihood : Likelihood
        A module's parameters (a learned noise) are trained, too, in a copy.
    mask : mask, optional
        Weights to fix at zero: retrains the survivors of an earlier decision.
    progress : bool
        Show a bar.

    Returns
    -------
    VariationalFit
        Its `history` has `step`, `nll` (mean), `kl` (nats), `kept` (expected open groups).

    Raises
    ------
    ValueError
        If a layer cannot be converted, or a batch is larger than the data.
    RunError
        If training diverges, or a watchdog barks (see `watchdogs`).
    """
    network, likelihood = bayesianise(model, settings.family), copy.deepcopy(likelihood)
    network.mask_weights(mask or {})
    stream = minibatches(data, settings.batch_size, settings.seed, 0)
    with _seeded(settings.seed, data[0].device):
        trainer = BoundTrainer(network, stream, likelihood, settings)
        history = _train(trainer, progress)
        bound = lower_bound(network, likelihood, data, settings.bound_draws, settings.batch_size)
    posterior = settings.family.posterior(network)
    return as_fit(posterior, likelihood, data, trainer.cost, history, settings.draws, settings.seed, bound)


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
    network: VariationalNetwork, likelihood: Likelihood, data: TrainSet, draws: int = 32, batch_size: int = 1000
) -> tuple[float, float]:
    """Estimate the evidence lower bound of all data, in nats (running normalisation statistics, nothing augmented).

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


class BoundTrainer(Trainer):
    """The shared loop with `step_loss` as its loss, and a rate for each kind of parameter.

    Attributes
    ----------
    nll, divergence : Tensor, 0-d
        Terms of the last loss.
    """

    nll: Tensor
    divergence: Tensor

    def __init__(
        self, network: VariationalNetwork, stream: MinibatchStream, likelihood: Likelihood, settings: Settings
    ) -> None:
        super().__init__(network, stream, likelihood, _optimizer(network, likelihood, settings), settings.steps)
        self.network, self.settings = network, settings

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the evidence bound per example, its divergence fading in."""
        progress = self.step / self.settings.steps
        for unit in self.network.units:
            unit.advance(progress)
        weight, num_data = kl_weight(progress, self.settings.warm_up), self.stream.num_data
        found = step_loss(self.network, self.likelihood, (inputs, targets), num_data, weight)
        loss, self.nll, self.divergence = found
        return loss

    def move(self) -> None:
        """One step of Adam; gates and scales stay inside their bounds."""
        super().move()
        self.network.constrain()


def _train(trainer: BoundTrainer, progress: bool) -> list[dict[str, float]]:
    network, settings = trainer.network, trainer.settings
    watchdog, trace = Watchdog(network, settings.on_empty), []
    watchdog.check_divergence()
    traced = {*range(settings.trace_every, settings.steps, settings.trace_every), settings.steps}
    for step in counted(sorted(traced | {min(MOVED_AFTER, settings.steps)}), "variational", "part", progress):
        trainer.run(step - trainer.step)
        if step == MOVED_AFTER:
            watchdog.check_moved(step)
        if step in traced:
            watchdog.check_state(last=step == settings.steps)
            kept = sum(float(odds.sigmoid().sum()) for odds in network.log_odds()[0].values())
            nll, divergence = float(trainer.nll.detach()), float(trainer.divergence.detach())
            trace.append({"step": step, "nll": nll, "kl": divergence, "kept": kept})
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
