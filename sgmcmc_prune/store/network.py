"""One network in one safe file: weights of whatever size its layers have, and what is needed to build it again.

The layers may be narrower than the architecture makes them: their sizes are those of the stored tensors.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices, models
from sgmcmc_prune.models.coupling import set_sizes
from sgmcmc_prune.settings import from_json
from sgmcmc_prune.store.tensor_file import read_tensors, write_tensors

FORMAT = "sgmcmc_prune.network/2"


@dataclass(frozen=True)
class About:
    """What a network is, and what its inputs must be.

    Parameters
    ----------
    model : str
        Its name, or "package.module:callable" of a user's own, which must be importable where the file is read.
    normalisation : str or None
        As of `models.build`.
    input_shape : tuple of int
        Of one example.
    num_classes : int
        Numbers that the network gives: logits, or what another likelihood takes.
    mean, std : tuple of float
        By channel of images: inputs in [0, 1] minus the mean, over the standard deviation.
    origin : str
        Where it comes from, in words.
    options : tuple of str
        NAME=VALUE that the network was made with.
    likelihood : str
        What its outputs mean.
    features : pair of tuple of float
        Centre and scale of each feature of a table: the network takes (x - centre) / scale.
    targets : pair of float
        Centre and unit of targets that are numbers: a mean m is unit * m + centre in the user's unit.
    noise : tuple of float
        Standard deviation of each target around its mean, over the unit; empty if there is none.
    each_target : pair of tuple of float
        As `targets`, of each of several targets, which were standardised one by one; empty for one target.
    classes, columns, target_names : tuple of str
        Names of the classes in the order of the logits, of the features, and of the targets; empty where the data set
        names none.
    """

    model: str
    normalisation: str | None
    input_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""
    options: tuple[str, ...] = ()
    likelihood: str = "categorical"
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    targets: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, ...] = ()
    each_target: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()


def require_safetensors(path: Path) -> None:
    """ValueError unless a network can be written to this path: another ending would promise another format."""
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path}: weights are written as safetensors files alone; name it {path.stem}.safetensors")
    require_file(path)


def require_file(path: Path) -> None:
    """ValueError if the path is that of a folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")


def save_network(path: Path, model: nn.Module, about: About) -> None:
    """Write a network to a safetensors file; the file appears complete or not at all."""
    require_safetensors(path)
    write_tensors(path, model.state_dict(), FORMAT, about=json.dumps(asdict(about)))


def load_network(path: Path, factory: Callable[..., nn.Module] | None = None) -> tuple[nn.Module, About]:
    """Read what `save_network` wrote; a file runs no code.

    Parameters
    ----------
    path : Path
    factory : callable, optional
        What makes the network, if it is a user's own: it takes (input_shape, num_classes, **options). A network of this
        library needs none.

    Returns
    -------
    model : nn.Module
        On the CPU, in evaluation mode.
    about : About

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds no network or one of another architecture than it says, or names a callable of a
        user's own and none is given.
    """
    tensors, metadata = read_tensors(path, FORMAT)
    about: About = from_json(json.loads(metadata["about"]), About, f"about in {path}")
    if ":" in about.model and factory is None:
        raise ValueError(
            f"{path} holds a network that is made by {about.model}, and a file runs no code: import it, and give it to "
            "load_network as `factory`"
        )
    options = {} if about.normalisation is None else {"normalisation": about.normalisation}
    options |= choices.options(about.options, f"options in {path}")
    make = about.model if factory is None else factory
    model = models.build(make, about.input_shape, about.num_classes, seed=0, **options)
    expected = model.state_dict().keys()
    if expected != tensors.keys():
        differing = sorted(expected ^ tensors.keys())
        raise ValueError(f"{path} does not fit {about.model!r}: only one of them has {', '.join(differing)}")
    built = dict(model.named_parameters(remove_duplicate=False))
    read = {p: nn.Parameter(tensors[name]) for name, p in built.items()}
    for name, value in tensors.items():
        tied = name in built and torch.equal(read[built[name]], value)  # two names of one parameter stay one
        _put(model, name, read[built[name]] if tied else value)
    return models.in_fast_layout(about.model, model).eval(), about


def _put(model: nn.Module, name: str, value: Tensor) -> None:
    """Set a parameter or a buffer, and the sizes that its layer says it has."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    before = getattr(module, own)
    is_parameter = isinstance(before, nn.Parameter) and not isinstance(value, nn.Parameter)
    setattr(module, own, nn.Parameter(value) if is_parameter else value)
    if own.startswith("weight") and value.shape != before.shape:
        set_sizes(module, own, value.shape)
