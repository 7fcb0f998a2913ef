"""Which implementation of a rule runs: `reference` (torch, tensor by tensor, obviously right) or `compiled`."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sgmcmc_prune import native

Implementation = Literal["auto", "reference", "compiled"]
Noise = Literal["gaussian", "rademacher"]


def choose(implementation: Implementation, parameters: Sequence[Tensor]) -> str:
    """The tier for some parameters.

    Parameters
    ----------
    implementation : {"auto", "reference", "compiled"}
        "auto" is "compiled" wherever that can run.
    parameters : sequence of Tensor

    Returns
    -------
    str
        "reference" or "compiled".

    Raises
    ------
    ValueError
        If "compiled" is asked for where it cannot run; the message says why, and what can.
    """
    if implementation not in ("auto", "reference", "compiled"):
        raise ValueError(f"implementation is {implementation!r}; choose auto, reference or compiled")
    if implementation == "reference":
        return "reference"
    obstacle = why_not_compiled(parameters)
    if obstacle and implementation == "compiled":
        raise ValueError(f"implementation 'compiled' cannot run: {obstacle}; use 'reference'")
    return "reference" if obstacle else "compiled"


def why_not_compiled(parameters: Sequence[Tensor]) -> str | None:
    """What keeps the compiled tier from running here, in words; None if nothing does."""
    for p in parameters:
        if p.device.type != "cpu" or p.dtype != torch.float32:
            return f"a parameter is {p.dtype} on {p.device}, and its kernels are for float32 on a CPU"
        if not _dense(p):
            return "a parameter does not fill its memory (it is a view with gaps)"
    try:
        native.load()
    except native.NativeUnavailable as reason:
        return str(reason)
    return None


def _dense(p: Tensor) -> bool:
    """Whether the entries of `p` lie in memory without gaps or overlaps, in any order."""
    return p.is_contiguous() or torch.empty_like(p).stride() == p.stride()


def available(device: str = "cpu") -> list[str]:
    """The tiers that can run on a device."""
    return ["reference"] if why_not_compiled([torch.zeros(1, device=device)]) else ["reference", "compiled"]
