"""What training leaves: plain networks drawn from the posterior, pruned or not, and their averaged predictions."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.evidence import point_spike_log_odds
from sgmcmc_prune.baselines.variational.factors import GateRule, noise_like
from sgmcmc_prune.baselines.variational.physical import shrink
from sgmcmc_prune.likelihoods import Likelihood, bernoulli, categorical
from sgmcmc_prune.predictive.predict import class_probabilities, posterior_predictive
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import batchnorm
from sgmcmc_prune.pruning.decision import median_probability_model
from sgmcmc_prune.pruning.masks import Mask

#: Unpruned: an average over draws of gates and weights; posterior means. Pruned to the median model: an average over
#: draws of weights; one physically smaller network with the means. To see what pruning costs compare the first with the
#: third, and the second with the fourth.
Predictor = Literal["monte_carlo", "mean", "median_sampled", "median_mean"]
PREDICTORS: tuple[Predictor, ...] = ("monte_carlo", "mean", "median_sampled", "median_mean")
_RULES: dict[Predictor, tuple[GateRule, bool]] = {
    "monte_carlo": ("sample", True),
    "mean": ("mean", False),
    "median_sampled": ("median", True),
    "median_mean": ("median", False),
}


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
    return dataclasses.replace(posterior, odds=odds, groups=dict(groups))


def _rule(how: Predictor) -> tuple[GateRule, bool]:
    if how not in _RULES:
        raise ValueError(f"predictor is {how!r}; choose one of {', '.join(PREDICTORS)}")
    return _RULES[how]


def median_mask(odds: dict[str, Tensor], groups: dict[str, GroupMap], complete: Callable[[Mask], Mask]) -> Mask:
    """Keep groups with log odds >= 0; where groups are nodes, drop what reads the others too."""
    if not groups:
        return {}
    mask = median_probability_model({name: value.sigmoid() for name, value in odds.items()}, groups)
    nodes = {name: mask[name] for name, group in groups.items() if group.kind == "node"}
    return mask | complete(nodes)


@dataclass(frozen=True)
class Fitted:
    """A trained posterior with what is needed to predict, prune and compare it.

    Attributes
    ----------
    posterior : Posterior
    likelihood : Likelihood
        As trained (a learned noise included).
    inputs : Tensor
        Training inputs, from which normalisation statistics are re-estimated after pruning.
    bound, bound_error : float
        Evidence lower bound in nats over the training set, and its standard error over the draws that it averages; NaN
        where the method has none. With gates on nodes training does not end at its maximum (see `gates`).
    gradient_evaluations : int
        Backward passes of one example.
    seconds : float
        Wall time of the training.
    trace : list of dict
        `step`, `nll` (mean), `kl` (nats), `kept` (expected open groups).
    """

    posterior: Posterior
    likelihood: Likelihood
    inputs: Tensor
    bound: float
    bound_error: float
    gradient_evaluations: int
    seconds: float
    trace: list[dict[str, float]]

    def scores(self) -> dict[str, Tensor]:
        """One score per group of `groups`, shape (G,), higher = keep: the log odds of inclusion."""
        return self.posterior.log_odds()[0]

    @property
    def groups(self) -> dict[str, GroupMap]:
        """The groups that are scored, by parameter name."""
        return self.posterior.log_odds()[1]

    def inclusion(self) -> dict[str, Tensor]:
        """Posterior inclusion probabilities, shape (G,)."""
        return {name: odds.sigmoid() for name, odds in self.scores().items()}

    def mask(self) -> Mask:
        """The method's own decision: the median probability model."""
        return self.posterior.mask()

    def kept_groups(self, seed: int = 0) -> dict[str, tuple[float, int, int]]:
        """By parameter: expected number of groups that are kept, number above one half, number in one draw."""
        generator, counts = torch.Generator().manual_seed(seed), {}
        for name, odds in self.scores().items():
            g = odds.sigmoid().cpu()
            drawn = torch.rand(g.shape, generator=generator) < g
            counts[name] = (float(g.sum()), int((g >= 0.5).sum()), int(drawn.sum()))
        return counts

    def network(self, how: Predictor) -> nn.Module:
        """One plain network with posterior means, unpruned or pruned; its normalisation statistics are re-estimated.

        For "median_mean" it is physically smaller: nodes that nobody reads are gone.
        """
        gates = _rule(how)[0]
        model = copy.deepcopy(self.posterior.plain)
        with torch.no_grad():
            weights = self.posterior.draw("mean" if gates == "sample" else gates, sampled=False)
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        batch = min(1000, len(self.inputs))
        batchnorm.reestimate(
            model, (self.inputs[i * batch : (i + 1) * batch] for i in range(min(10, len(self.inputs) // batch)))
        )
        return shrink(model) if how == "median_mean" else model

    def draws(self, how: Predictor, members: int = 10, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Parameters of `members` plain networks (one where the weights are means)."""
        gates, sampled = _rule(how)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(members if sampled else 1):
            yield self.posterior.draw(gates, sampled, generator)

    @torch.no_grad()
    def outputs(self, inputs: Tensor, how: Predictor = "monte_carlo", members: int = 10, seed: int = 0) -> Tensor:
        """Network outputs of each member, shape (members, n, ...)."""
        model = self.network(how).eval()
        if how in ("mean", "median_mean"):
            return model(inputs)[None]
        return torch.stack([functional_call(model, draw, (inputs,)) for draw in self.draws(how, members, seed)])

    def predict(self, inputs: Tensor, how: Predictor = "monte_carlo", members: int = 10, seed: int = 0) -> Tensor:
        """Predictive mean: class probabilities (n, classes), averaged over members; the mean response otherwise.

        Raises
        ------
        ValueError
            If the predictor is unknown.
        """
        if self.likelihood is categorical:
            model = self.network(how)
            if how in ("mean", "median_mean"):
                return class_probabilities(model, inputs)
            return posterior_predictive(model, self.draws(how, members, seed), inputs).probabilities
        outputs = self.outputs(inputs, how, members, seed)
        return (outputs.sigmoid() if self.likelihood is bernoulli else outputs).double().mean(0)

    def nll(
        self, inputs: Tensor, targets: Tensor, how: Predictor = "monte_carlo", members: int = 10, seed: int = 0
    ) -> float:
        """Negative log predictive density, the mean over examples of -log mean_s p(y | f_s), in nats."""
        per_member = torch.stack([self.likelihood(f, targets) for f in self.outputs(inputs, how, members, seed)])
        log_mean = torch.logsumexp(-per_member.detach().double(), 0) - torch.log(torch.tensor(float(len(per_member))))
        return float(-log_mean.mean())
