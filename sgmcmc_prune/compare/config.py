"""What a comparison is asked to do. The command line is made from it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.settings import require


@dataclass(frozen=True)
class Comparison:
    """What is compared, and at which budget.

    Parameters
    ----------
    methods
        Names of `sgmcmc-prune methods`; by default all of the track.
    track
        "trained": every method trains as it likes, within the budget. "one-shot": every method starts from the same
        network, or the same chain, of a seed, which has spent the budget, and trains no more; what a method looks at
        then is counted on top. "structured": whole filters and nodes are pruned, and cut out for the table.
        "ensembles": one network against `members` networks that have as many weights together, and the same budget.
    sparsities
        Targets, rising, inside (0, 1).
    seeds
        Of networks, minibatches, noise and the validation split.
    epochs
        Budget of every pruned network: passes over the training data, curvatures and saliencies included; 8 or more,
        which the phases of every method fit into. With `start` nothing is trained, and a budget is refused.
    members
        Networks in an ensemble.
    search
        Settings that each method may try on validation images before; 1 takes its defaults. Where the best lies at
        the edge of what was tried, up to four more are tried beyond it.
    data, model
        As in `run`. With `data.augmentation` every method trains on the same augmented minibatches, and what it looks
        at beside them (scores at the start, curvatures, statistics of batch normalisation) is augmented, too.
    evaluate
        The split of the table: "validation" while choices are still being made, "test" once.
    ood
        Another data set, whose images should look foreign.
    ood_dir
        Folder with its files.
    device
        "cpu" or a CUDA device.
    start
        One-shot alone: a file with the state dict of a network that is trained already, which every seed starts from;
        its training is counted as nothing. Methods that start from a chain do not apply then. Its inputs are normalised
        as in a run (a first line says how good it is on them), and it may have been trained on validation examples.
        Statistics of batch normalisation are estimated again, as for every method.
    """

    methods: tuple[str, ...] = ()
    track: Literal["trained", "one-shot", "structured", "ensembles"] = "trained"
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98, 0.99)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 30
    members: int = 12
    search: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    evaluate: Literal["validation", "test"] = "validation"
    ood: str | None = None
    ood_dir: Path | None = None
    device: str = "cpu"
    start: Path | None = None

    def __post_init__(self) -> None:
        s = self.sparsities
        require(bool(s) and all(0 < v < 1 for v in s), f"sparsities are {s}; give numbers inside (0, 1)")
        require(list(s) == sorted(set(s)), f"sparsities are {s}; give rising numbers")
        require(bool(self.seeds) and min(self.seeds) >= 0, f"seeds are {self.seeds}; give at least one, none negative")
        require(max(self.seeds) < 2**16 - 1, f"seeds are {self.seeds}; give at most {2**16 - 2}")
        require(
            self.epochs >= 8 or self.start is not None,
            f"epochs is {self.epochs}; give 8 or more",
        )
        require(self.members >= 1, f"members is {self.members}; an ensemble has at least 1")
        require(self.search >= 1, f"search is {self.search}; it counts the default settings, so 1 is no search")
        require(self.data.validation > 0, "data.validation is 0; hold some images out")
        if self.start is not None:
            require(self.track == "one-shot", f"start is for the track one-shot, and the track is {self.track}")
            require(self.search == 1, f"search is {self.search}; with start there is no training to choose for")
            idle = self.epochs != Comparison.epochs
            require(not idle, f"epochs is {self.epochs}, and with start nothing is trained; leave it out")
