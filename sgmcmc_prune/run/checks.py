"""What is refused of a configuration before data are read."""

import importlib.util
import itertools
from dataclasses import fields

import torch

from sgmcmc_prune import choices
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.machine import bfloat16
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.run.config import PriorConfig, RunConfig


def check_choices(config: RunConfig) -> None:
    """Load everything that a configuration names, and ask the criteria whether the run suits them.

    Raises
    ------
    ValueError
        If a user's module cannot be imported, a criterion is refused, or TensorBoard is wanted and not installed.
    """
    for where, kind, name in config.choices():
        if choices.is_given(name):
            continue
        found = choices.load_callable(kind, name)
        if kind in ("growth", "decision") and choices.is_own(name) and isinstance(found, type):
            raise ValueError(f"{where} is {name!r}, a class; it must be a function")
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError('tensorboard is asked for and not installed: pip install ".[tensorboard]"')
    check_growth(config.prune.growth_schedule)
    for where, names in (("post_hoc", config.prune.post_hoc), ("in_chain", config.prune.in_chain)):
        for place, name in enumerate(names):
            criterion = make_criterion(name)
            with choices.calling("criterion", name):
                reason = criterion.refused(config)
            if not isinstance(reason, str):
                raise ValueError(
                    f"`refused` of criterion {name} gave {reason!r}; it must give a text, empty if it is fine"
                )
            if reason:
                raise ValueError(reason)
            if criterion.copies_layers and place == 0:
                raise ValueError(
                    f"{where} starts with {name!r}, which copies the per-layer sparsity of the first criterion; put "
                    "another criterion first"
                )


def prior_class(config: RunConfig) -> type[Prior]:
    """The class of the prior; ValueError if a name is none of a prior."""
    name = config.prior.family
    family = choices.load("prior", name)
    if not (isinstance(family, type) and issubclass(family, Prior)):
        raise ValueError(f"prior {name!r} is no subclass of sgmcmc_prune.priors.Prior")
    if not isinstance(family.settings, tuple):
        raise ValueError(f"prior {name!r} has settings {family.settings!r}; they must be a tuple of names: ('a',)")
    if unknown := set(family.settings) - {f.name for f in fields(PriorConfig)}:
        raise ValueError(f"prior {name!r} reads {', '.join(sorted(unknown))}, no setting of a run's prior")
    return family


def check_growth(name: str) -> None:
    """ValueError unless the growth of the mask falls from 1 to 0."""
    growth = choices.load("growth", name)
    with choices.calling("growth", name):
        left = [float(growth(k / 100)) for k in range(101)]
    falls = all(0 <= after <= before <= 1 for before, after in itertools.pairwise(left))
    if not falls or left[0] != 1 or left[-1] != 0:
        raise ValueError(
            f"prune.growth_schedule {name} must fall from 1 to 0, being what is left of the growth; it goes from "
            f"{left[0]:g} over {left[50]:g} to {left[-1]:g}"
        )


def check_device(device: str) -> None:
    """ValueError when the device does not exist here."""
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose cpu, cuda, or one of several GPUs as cuda:0")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count() or "no"
        raise ValueError(f"device is {device!r} but PyTorch sees {seen} CUDA devices here; use --device cpu")


def check_precision(precision: str, device: str) -> None:
    """ValueError for bfloat16 where it is emulated; the device must exist."""
    reason = bfloat16.why_slow(device) if precision == "bfloat16" else ""
    if reason:
        raise ValueError(
            f"precision is 'bfloat16', but {reason}: there it is emulated, and many times slower than float32; use "
            "--precision float32"
        )
