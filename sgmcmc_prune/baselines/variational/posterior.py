"""What training leaves: plain networks drawn from the posterior, pruned or not, and their averaged predictions."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.fit import Cost, Fit
from sgmcmc_prune.baselines.variational.evidence import point_spike_log_odds
from sgmcmc_prune.baselines.variational.factors import GateRule, noise_like
from sgmcmc_prune.data.batches import TrainSet, chosen
from sgmcmc_prune.likelihoods import Bernoulli, Categorical, Likelihood
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import batchnorm
from sgmcmc_prune.pruning.decision import median_probability_model
from sgmcmc_prune.pruning.masks import Mask

#: Unpruned: an average over draws of gates and weights; the network of posterior means. Pruned to the median model: an
#: average over draws of weights; the means. To see what pruning costs compare the first with the third, and the second
#: with the fourth.
PREDICTORS = ("monte_carlo", "mean", "median_sampled", "median_mean")
#: Training examples behind normalisation statistics, at most.
STATISTICS = 10_000


class Posterior(Protocol):
    """A posterior over the weights of a plain network, with log odds of inclusion."""

    @property
    def plain(self) -> nn.Module:
        """The plain network, with current normalisation statistics."""

    def draw(
        self, gates: GateRule = "sample", sampled: bool = True, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Parameters of one plain network."""

    def log_odds(self) -> tuple[dict[str, Tensor], dict[str, GroupMap]]:
        """Log odds of inclusion by parameter name, shape (G,), and the groups."""

    def mask(self) -> Mask:
        """The median probability model, with the weights that it leaves without a reader."""


@dataclass(frozen=True)
class GaussianPosterior:
    """Independent normals on all parameters, and log odds of inclusion that were derived from them.

    Attributes
    ----------
    plain : Module
    mean, variance : dict of str to Tensor
        By parameter name.
    odds : dict of str to Tensor, shape (G,)
    groups : dict of str to GroupMap
    complete : callable
        Adds to a mask the columns that read removed nodes.
    """

    plain: nn.Module
    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    odds: dict[str, Tensor]
    groups: dict[str, GroupMap]
    complete: Callable[[Mask], Mask]

    def draw(
        self, gates: GateRule = "sample", sampled: bool = True, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """One draw, or the means; "median" prunes, the other rules do not: the indicators are not in the network."""
        noise = {
            n: v.sqrt() * noise_like(v, generator) if sampled else torch.zeros_like(v) for n, v in self.variance.items()
        }
        weights = {name: parameter.detach() for name, parameter in self.plain.named_parameters()}
        weights |= {name: mean + noise[name] for name, mean in self.mean.items()}
        if gates == "median":
            weights |= {name: weights[name] * kept for name, kept in self.mask().items()}
        return weights

    def log_odds(self) -> tuple[dict[str, Tensor], dict[str, GroupMap]]:
        """Log odds of inclusion and their groups."""
        return self.odds, self.groups

    def mask(self) -> Mask:
        """The median probability model."""
        return median_mask(self.odds, self.groups, self.complete)


def point_spike(
    posterior: GaussianPosterior, groups: Mapping[str, GroupMap], slab_std: float, inclusion: float
) -> GaussianPosterior:
    """R2 on a trained normal posterior: the same weights with other groups and their Savage-Dickey log odds.

    Parameters
    ----------
    posterior : GaussianPosterior
        Trained under the prior N(0, slab_std^2).
    groups : mapping of str to GroupMap
        Groups of the parameters to select from.
    slab_std, inclusion : float
        s1 and pi.
    """
    kl.check_inclusion(inclusion)
    odds = {
        name: point_spike_log_odds(posterior.mean[name], posterior.variance[name], group, slab_std, inclusion)
        for name, group in groups.items()
    }
    return replace(posterior, odds=odds, groups=dict(groups))


def median_mask(odds: dict[str, Tensor], groups: dict[str, GroupMap], complete: Callable[[Mask], Mask]) -> Mask:
    """Keep groups with log odds >= 0; where groups are nodes, drop what reads the others too."""
    if not groups:
        return {}
    mask = median_probability_model({name: value.sigmoid() for name, value in odds.items()}, groups)
    nodes = {name: mask[name] for name, group in groups.items() if group.kind == "node"}
    return mask | complete(nodes)


@dataclass(frozen=True, kw_only=True)
class VariationalFit(Fit):
    """A trained posterior; its scores are log odds of inclusion, its mask the median probability model.

    Attributes
    ----------
    posterior : Posterior
    likelihood : Likelihood
        As trained (a learned noise included). Of a regression `single` and `predict` give mean responses.
    inputs : Tensor
        Training inputs as training saw them, from which normalisation statistics are re-estimated after pruning.
    seed : int
        Of the draws.
    bound, bound_error : float
        Evidence lower bound in nats over the training set, and its standard error over the draws that it averages; NaN
        where the method has none. With gates on nodes training does not end at its maximum (see `gates`).
    """

    posterior: Posterior
    likelihood: Likelihood
    inputs: Tensor
    seed: int
    bound: float = math.nan
    bound_error: float = math.nan

    def inclusion(self) -> dict[str, Tensor]:
        """Posterior inclusion probabilities, shape (G,)."""
        return {name: odds.sigmoid() for name, odds in self.scores.items()}

    def kept_groups(self, seed: int = 0) -> dict[str, tuple[float, int, int]]:
        """By parameter: expected number of groups that are kept, number above one half, number in one draw."""
        generator, counts = torch.Generator().manual_seed(seed), {}
        for name, odds in self.scores.items():
            g = odds.sigmoid().cpu()
            drawn = torch.rand(g.shape, generator=generator) < g
            counts[name] = (float(g.sum()), int((g >= 0.5).sum()), int(drawn.sum()))
        return counts

    def pruned(self) -> Self:
        """The same fit pruned to the median model; `shrink` cuts its network to what is left."""
        network = mean_network(self.posterior, self.inputs, "median")
        return replace(self, model=network, draws=drawn(self.posterior, len(self.draws), self.seed, "median"))

    def alone(self) -> Self:
        """The same fit without draws: what it predicts is what its one network does."""
        return replace(self, draws=())

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """Network outputs of each member, shape (members, n, ...)."""
        with evaluation_mode(self.model):
            members = self.draws or [{}]
            return torch.stack([functional_call(self.model, dict(weights), (inputs,)) for weights in members])

    def single(self, inputs: Tensor) -> Tensor:
        """Class probabilities of the one network, or its responses."""
        return super().single(inputs) if isinstance(self.likelihood, Categorical) else self.alone().predict(inputs)

    def predict(self, inputs: Tensor) -> Tensor:
        """Class probabilities averaged over the draws, or the mean response."""
        if isinstance(self.likelihood, Categorical):
            return super().predict(inputs)
        outputs = self.outputs(inputs)
        return (outputs.sigmoid() if isinstance(self.likelihood, Bernoulli) else outputs).double().mean(0)

    def nll(self, inputs: Tensor, targets: Tensor) -> float:
        """Negative log predictive density, the mean over examples of -log mean_s p(y | f_s), in nats."""
        per_member = torch.stack([self.likelihood(f, targets) for f in self.outputs(inputs)])
        log_mean = torch.logsumexp(-per_member.detach().double(), 0) - math.log(len(per_member))
        return float(-log_mean.mean())


def predictors(fit: VariationalFit) -> dict[str, VariationalFit]:
    """The four of `PREDICTORS`: `predict` and `nll` of each are those of one."""
    pruned = fit.pruned()
    return dict(zip(PREDICTORS, (fit, fit.alone(), pruned, pruned.alone()), strict=True))


def mean_network(posterior: Posterior, inputs: Tensor, gates: GateRule = "mean") -> nn.Module:
    """The plain network with posterior means; its normalisation statistics are re-estimated from training inputs."""
    model = copy.deepcopy(posterior.plain)
    with torch.no_grad():
        weights = posterior.draw(gates, sampled=False)
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    batch = min(1000, len(inputs))
    batchnorm.reestimate(model, (inputs[i * batch : (i + 1) * batch] for i in range(len(inputs) // batch)))
    return model


def drawn(posterior: Posterior, count: int, seed: int, gates: GateRule = "sample") -> list[dict[str, Tensor]]:
    """Parameters of so many plain networks."""
    generator = torch.Generator().manual_seed(seed)
    return [posterior.draw(gates, True, generator) for _ in range(count)]


def as_fit(
    posterior: Posterior,
    likelihood: Likelihood,
    train: TrainSet,
    cost: Cost,
    history: Sequence[Mapping[str, float]],
    draws: int,
    seed: int,
    bound: tuple[float, float] = (math.nan, math.nan),
) -> VariationalFit:
    """The fit of a trained posterior, with so many draws."""
    inputs, _ = chosen(train, slice(STATISTICS), seed, 1, 0)
    scores, groups = posterior.log_odds()
    return VariationalFit(
        model=mean_network(posterior, inputs),
        cost=cost,
        draws=drawn(posterior, draws, seed),
        scores=scores,
        groups=groups,
        mask=posterior.mask(),
        history=history,
        posterior=posterior,
        likelihood=likelihood,
        inputs=inputs,
        seed=seed,
        bound=bound[0],
        bound_error=bound[1],
    )
