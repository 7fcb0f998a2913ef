"""What is refused of a configuration before data are read."""

import torch

from sgmcmc_prune import choices
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.run.config import RunConfig


def check_choices(config: RunConfig) -> None:
    """Load everything that a configuration names, and ask the criteria whether the run suits them.

    Raises
    ------
    ValueError
        If a user's module cannot be imported, or a criterion is refused.
    """
    for _, kind, name in config.choices():
        choices.load(kind, name)
    for where, names in (("post_hoc", config.prune.post_hoc), ("in_chain", config.prune.in_chain)):
        for place, name in enumerate(names):
            criterion = make_criterion(name)
            if reason := criterion.refused(config):
                raise ValueError(reason)
            if criterion.copies_layers and place == 0:
                raise ValueError(
                    f"{where} starts with {name!r}, which copies the per-layer sparsity of the first criterion; put "
                    "another criterion first"
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
