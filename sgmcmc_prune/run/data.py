"""The data of a run: splits on its device, and the probes whose outputs are kept with every draw."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgmcmc_prune import choices
from sgmcmc_prune import data as datasets
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.data.image_data import Dataset, LabelledImages, held_out, hold_out
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.likelihoods import Likelihood, ObservationModel
from sgmcmc_prune.run.config import RunConfig

#: What helps where examples differ from one call to the next.
SAME_AGAIN = "draw them with a fixed seed (torch.Generator().manual_seed(0)), or save the arrays once and give npz:FILE"


@dataclass(frozen=True)
class Data:
    """The splits of a run on its device: targets, and inputs as tensors (or `PictureInputs`, read on demand).

    `train` may be `Augmented`; where it is not, the configuration of a run says what its minibatches are.
    """

    dataset: Dataset
    train: TrainSet
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train[0].shape[1:])


def load_data(config: RunConfig) -> Data:
    """Read and split the data of a configuration. The split depends on the seed alone."""
    return split_data(_dataset(config), config)


def require_same_again(config: RunConfig, dataset: Dataset) -> None:
    """ValueError if a data set of the user's own gives other examples when it is called once more.

    Every process of a run, and a resume, calls it. One that returns a `Dataset` need not say what its examples are, and
    is taken at its word.
    """
    if not choices.is_own(config.data.name) or (first := dataset.digest) is None:
        return
    if _dataset(config).digest != first:
        raise ValueError(
            f"your data set {config.data.name} gives other examples when it is called again, as every process of a run "
            f"does: {SAME_AGAIN}"
        )


def _dataset(config: RunConfig) -> Dataset:
    """The data set that a configuration names."""
    options = choices.options(config.data.options, "data.options")
    found = likelihood(config)
    targets = found.targets if isinstance(found, ObservationModel) else "any"
    return datasets.load(config.data.name, config.data.data_dir, targets=targets, **options)


def likelihood(config: RunConfig) -> Likelihood:
    """The likelihood that a configuration names; ValueError for options that it does not have."""
    name, options = config.likelihood, choices.options(config.likelihood_options, "likelihood_options")
    if isinstance(choices.load("likelihood", name), type):
        made: Likelihood = choices.make("likelihood", name, **options)
        return made
    if options:
        raise ValueError(f"likelihood {name} has no options; likelihood_options are {', '.join(options)}")
    return choices.load_callable("likelihood", name)


def split_data(dataset: Dataset, config: RunConfig) -> Data:
    """Hold the validation split out, and put all on the device."""
    train, validation = hold_out(dataset.train, config.data.validation, config.seed)

    def tensors(part: LabelledImages) -> tuple[Tensor, Tensor]:
        return part.inputs(dataset.mean, dataset.std, config.device), part.labels.to(config.device)

    return Data(dataset, tensors(train), tensors(validation), tensors(dataset.test))


@dataclass(frozen=True)
class Probes:
    """Examples whose outputs are kept with every draw.

    Attributes
    ----------
    inputs, labels : Tensor, shapes (probe, ...) and (probe, ...)
    held_out : Tensor, bool, shape (probe,)
        Those in the validation split.
    index : Tensor, int64, shape (probe,)
        Places of the examples in their set: of two runs, the same numbers are the same examples.
    """

    inputs: Tensor
    labels: Tensor
    held_out: Tensor
    index: Tensor


def choose_probes(config: RunConfig, data: Data) -> Probes:
    """The first of a fixed random order of the official training images: the same for every seed and every split.

    A run trains on those that its validation split does not hold.
    """
    images, seed = data.dataset.train, config.seed
    if config.probes > len(images):
        raise ValueError(f"probes is {config.probes}; choose 1 to {len(images)}, the number of training images")
    index = torch.randperm(len(images), generator=seeded_generator("probes"))[: config.probes]
    chosen = images.subset(index)
    inputs = chosen.inputs(data.dataset.mean, data.dataset.std, config.device)[:]
    held = held_out(len(images), config.data.validation, seed)[index]
    positions = data.dataset.positions
    return Probes(inputs, chosen.labels.to(config.device), held, index if positions is None else positions[index])
