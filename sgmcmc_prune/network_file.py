"""One network in one safe file: weights of whatever size its layers have, and what is needed to build it again.

The layers may be narrower than the architecture makes them: their sizes are those of the stored tensors.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.config import from_json
from sgmcmc_prune.files import atomic_path

FORMAT = "sgmcmc_prune.network/1"


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
    mean, std : tuple of float
        By channel: inputs in [0, 1] minus the mean, over the standard deviation.
    origin : str
        Where it comes from, in words.
    """

    model: str
    normalisation: str | None
    input_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""


def save_network(path: Path, model: nn.Module, about: About) -> None:
    """Write a network to a safetensors file; the file appears complete or not at all."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, {"format": FORMAT, "about": json.dumps(asdict(about))})


def load_network(path: Path) -> tuple[nn.Module, About]:
    """Read what `save_network` wrote.

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
        If the file is damaged, holds no network, or one of another architecture than it says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} holds no network of format {FORMAT}: its format is {metadata.get('format')}")
    about: About = from_json(json.loads(metadata["about"]), About, f"about in {path}")
    options = {} if about.normalisation is None else {"normalisation": about.normalisation}
    model = models.build(about.model, about.input_shape, about.num_classes, seed=0, **options)
    expected = model.state_dict().keys()
    if expected != tensors.keys():
        differing = sorted(expected ^ tensors.keys())
        raise ValueError(f"{path} does not fit {about.model!r}: only one of them has {', '.join(differing)}")
    for name, value in tensors.items():
        _put(model, name, value)
    return models.in_fast_layout(about.model, model).eval(), about


def _put(model: nn.Module, name: str, value: Tensor) -> None:
    """Set a parameter or a buffer, and the sizes that its layer says it has."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    before = getattr(module, own)
    setattr(module, own, nn.Parameter(value) if isinstance(before, nn.Parameter) else value)
    if own == "weight" and value.shape != before.shape:
        _resize(module, value.shape)


def _resize(module: nn.Module, shape: torch.Size) -> None:
    """Have a layer say the sizes that its weight (outputs, inputs, ...) has."""
    sizes = (("out_features", "out_channels", "num_features"), ("in_features", "in_channels"))
    for size, names in zip(shape[:2], sizes, strict=False):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, size)
