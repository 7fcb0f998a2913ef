"""What a criterion is: it says what it observes of a chain, how it ranks groups by that, and when it is refused."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sgmcmc_prune import choices
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap

#: One number per group of each prunable parameter, shape (G,), higher = keep.
Scores = dict[str, Tensor]
#: Averages over states of a chain, by what was observed, then by parameter.
Averages = Mapping[str, Mapping[str, Tensor]]


class Criterion:
    """A ranking of groups, from averages over the draws of a chain (post hoc) or over its last steps (in the chain).

    A criterion of one's own defines `observe` and `scores`; a run then averages what it observes. It keeps no state:
    the object that observes is not the one that scores.
    """

    #: Every chain keeps these averages anyway: `mean`, `variance` and `square` of each weight and, under a
    #: spike-and-slab prior, `log_included`, `log_excluded` and `log_odds` of each group.
    kept_by_chains: ClassVar[bool] = False
    #: What is observed as a logarithm, and averaged as what it is the logarithm of.
    log_space: ClassVar[frozenset[str]] = frozenset()
    #: Scores are log-odds of inclusion: then decisions without a target are taken, too.
    probabilities: ClassVar[bool] = False
    #: In each layer it prunes as many weights as the first criterion does: a control.
    copies_layers: ClassVar[bool] = False
    #: It moves the weights that stay, too: a run asks `run.conditional` for masks and draws, not `scores`.
    moves: ClassVar[bool] = False

    def refused(self, config: Any) -> str:
        """Why a run of this configuration cannot use the criterion; "" if it can."""
        return ""

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """What of one parameter, in one state, is averaged.

        Parameters
        ----------
        prior : Prior or None
        name : str
        w : Tensor
            Its value; a copy, which may be changed.
        temperature : float

        Returns
        -------
        dict of str to Tensor
            By name, of any shape that is the same in every state.
        """
        return {}

    def inclusion(self, averages: Averages, scores: Scores) -> Scores:
        """Inclusion probabilities, where `probabilities` says that there are: by default those of the scores."""
        return {name: score.double().sigmoid() for name, score in scores.items()}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """Rank the groups of every prunable parameter by averages of what was observed.

        Raises
        ------
        ValueError
            If the chain did not average what is needed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores(averages, groups, seed)")


def weight(values: Mapping[str, Tensor], name: str, group: GroupMap) -> Tensor:
    """Look up one weight-shaped tensor, in float64: squares of small weights underflow in float32."""
    if name not in values:
        raise ValueError(f"no values for prunable parameter {name!r}; got {sorted(values)}")
    if tuple(values[name].shape) != group.shape:
        raise ValueError(f"{name!r} has shape {tuple(values[name].shape)}; its groups need {group.shape}")
    return values[name].detach().double()


def root_mean(squares: Tensor, group: GroupMap) -> Tensor:
    """Root of the mean over each group: groups of different sizes compare."""
    return (group.sum(squares) / group.sizes(squares)).sqrt()


def first_flagged(flags: Mapping[str, Tensor]) -> str | None:
    """The first layer whose flag, a 0-d boolean tensor, is up; a GPU is waited for once, and not for every layer."""
    if not flags or not bool(torch.stack(list(flags.values())).any()):
        return None
    return next(name for name, up in flags.items() if bool(up))


def make_criterion(name: str) -> Criterion:
    """The criterion of a name; ValueError if it is no `Criterion`."""
    made = choices.make("criterion", name)
    if not isinstance(made, Criterion):
        raise ValueError(
            f"criterion {name!r} makes a {type(made).__name__}; it must be a subclass of criteria.base.Criterion"
        )
    return made
