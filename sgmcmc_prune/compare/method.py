"""The contract between the comparison and a method: a problem goes in, candidate networks come out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Cost
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.data import Data
from sgmcmc_prune.run.run import Run

#: Inputs (n, ...) to class probabilities (n, classes), float64.
Predict = Callable[[Tensor], Tensor]
#: Hyperparameters by the names of a method's recipe.
Settings = Mapping[str, float]
#: What a training serves.
ONE_EACH, ONE_FOR_ALL = "one for each target", "one for all targets"


@dataclass(frozen=True)
class Problem:
    """What every method is given.

    Attributes
    ----------
    config : RunConfig
        Its data, model, device and seed are the problem's; the rest concerns Markov chains alone.
    data : Data
        A method may train on `train`, whose minibatches `data.batches.minibatches` augments if that was asked for (it
        is `Augmented` then, and no pair), and choose on `validation`.
    sparsities : tuple of float
        Targets, rising, inside (0, 1).
    epochs : float
        Budget of *each* candidate in passes over the training data: backward passes of one example, over their number.
        Methods are built from `steps`, and spend all of them.
    members : int
        Networks in an ensemble, where a method may choose.
    shared : Path
        Folder of this seed for what several methods use; lock what you write.
    settings : mapping of str to float
        One point of the method's grid; what it does not name is the method's default.
    start : Path or None
        A trained network's state dict, from which one-shot methods start instead of training one.
    """

    config: RunConfig
    data: Data
    sparsities: tuple[float, ...]
    epochs: float
    members: int
    shared: Path
    settings: Settings = field(default_factory=dict)
    start: Path | None = None

    @property
    def seed(self) -> int:
        """Key of everything random."""
        return self.config.seed

    @property
    def batch_size(self) -> int:
        """Examples in a minibatch."""
        return self.config.data.batch_size

    @property
    def num_data(self) -> int:
        """N, the number of training examples."""
        return len(self.data.train[1])

    @property
    def steps(self) -> int:
        """The budget in minibatches."""
        return self.steps_beside(0)

    def steps_beside(self, evaluations: float) -> int:
        """Minibatches that are left of the budget beside so many backward passes of one example."""
        return round((self.epochs * self.num_data - evaluations) / self.batch_size)

    @cached_property
    def run(self) -> Run:
        """What builds networks, groups and statistics of the problem."""
        return Run(self.config, data=self.data)

    @cached_property
    def statistics(self) -> Callable[[], list[Tensor]]:
        """Input batches for the statistics of batch normalisation, made once for all candidates of a fit."""
        return self.run.statistics_batches()

    def network(self, member: int = 0) -> nn.Module:
        """The network at the start that all methods share; a member of an ensemble may have another."""
        return self.run.model(member)


@dataclass(frozen=True)
class Ties:
    """How many groups a mask decided by tie (`decision.tied`), of how many."""

    count: int
    groups: int


@dataclass(frozen=True)
class Candidate:
    """A pruned predictor, as one network and as an ensemble.

    Attributes
    ----------
    target : float or None
        The sparsity that was asked for; None at the method's own stopping rule.
    masks : sequence of masks
        One that all networks share, or one for each member (the single network has about as many zeros then).
    single, predict : callable
        Class probabilities of given inputs: those of one network, and their average over the ensemble.
    members : int
        Networks in the ensemble; 1 where the ensemble is the single network.
    cost : Cost
        What somebody would spend who wanted this candidate alone.
    ties : Ties or None
        What the mask decided by tie; None where no scores decided it, or the method keeps them to itself.
    calibration_examples : int
        Examples that were looked at after training, to choose the mask or to move weights; `cost` has them, too.
    shuffled : Candidate or None
        The control of a method that does not train under its mask: its masks, shuffled within their layers.
    """

    target: float | None
    masks: Sequence[Mask]
    single: Predict
    predict: Predict
    members: int
    cost: Cost
    ties: Ties | None = None
    calibration_examples: int = 0
    shuffled: "Candidate | None" = None


@dataclass(frozen=True)
class Method:
    """A method, and what `sgmcmc-prune methods` says about it.

    Attributes
    ----------
    name, family, paper : str
    scope : str
        What it applies to, in words.
    applies : callable
        A problem to the reason why it does not apply, or None.
    fit : callable
        (problem, folder of its own) to candidates, in any order. A fit that is repeated in a folder continues there, or
        starts afresh.
    grid : mapping of str to tuple of float
        What a search may choose: values of each hyperparameter, the default first. Earlier names are changed first.
    training : str
        What a training serves: one target, or all of them.
    untrained : tuple of str
        What it reads of its grid where a network is given and nothing is trained.
    """

    name: str
    family: str
    paper: str
    scope: str
    applies: Callable[[Problem], str | None]
    fit: Callable[[Problem, Path], Iterator[Candidate]]
    grid: Mapping[str, tuple[float, ...]]
    training: str = ONE_EACH
    untrained: tuple[str, ...] = ()


def in_words(settings: Settings) -> str:
    """Settings as a table shows them: "lr=0.1, weight_decay=0.0005"."""
    return ", ".join(f"{name}={value:g}" for name, value in settings.items())
