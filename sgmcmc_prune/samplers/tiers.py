"""Which implementation of a rule runs.

=============  =================================================================================================
`reference`    torch, tensor by tensor: obviously right, for every sampler, device and type
`compiled`     SGHMC and SGLD in C, one pass over memory; for every sampler, noise made in C: float32 on a CPU
`triton`       SGHMC and SGLD in Triton, one launch: float32 on a CUDA GPU (or in its interpreter, for tests)
=============  =================================================================================================

All use the same random words, and agree to rounding.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune.native.memory import is_dense
from sgmcmc_prune.samplers.triton_tier import MOST_ENTRIES, memory_order

Implementation = Literal["auto", "reference", "compiled", "triton"]
Noise = Literal["gaussian", "rademacher"]

#: By the type of device, the fastest first: what "auto" tries.
PREFERRED = {"cpu": ("compiled", "reference"), "cuda": ("triton", "reference")}


def choose(implementation: Implementation, parameters: Sequence[Tensor], fused: bool = True) -> str:
    """The tier for some parameters.

    Parameters
    ----------
    implementation : {"auto", "reference", "compiled", "triton"}
        "auto" is the fastest that can run.
    parameters : sequence of Tensor
    fused : bool
        Whether the sampler's rule is that of SGHMC or SGLD; other rules run in torch, with compiled noise on a CPU.

    Returns
    -------
    str
        One of the others.

    Raises
    ------
    ValueError
        If what is asked for cannot run; the message says why, and what can.
    """
    names = get_args(Implementation)
    if implementation not in names:
        raise ValueError(f"implementation is {implementation!r}; choose {', '.join(names[:-1])} or {names[-1]}")
    device = parameters[0].device.type if parameters else "cpu"
    able = [tier for tier in PREFERRED.get(device, ("reference",)) if not why_not(tier, parameters, fused)]
    if implementation == "auto":
        return able[0]
    obstacle = why_not(implementation, parameters, fused)
    if obstacle:
        raise ValueError(
            f"implementation {implementation!r} cannot run: {obstacle}; use {' or '.join(map(repr, able))}"
        )
    return implementation


def why_not(tier: str, parameters: Sequence[Tensor], fused: bool = True) -> str | None:
    """What keeps a tier from running here, in words; None if nothing does."""
    if tier == "triton" and not fused:
        return "this sampler's rule is neither that of SGHMC nor that of SGLD"
    if tier == "compiled":
        return why_not_compiled(parameters)
    return why_not_triton(parameters) if tier == "triton" else None


def why_not_compiled(parameters: Sequence[Tensor]) -> str | None:
    """What keeps the compiled tier from running here, in words; None if nothing does."""
    for p in parameters:
        if p.device.type != "cpu" or p.dtype != torch.float32:
            return f"a parameter is {p.dtype} on {p.device}, and its kernels are for float32 on a CPU"
        if not is_dense(p):
            return "a parameter does not fill its memory (it is a view with gaps)"
    try:
        native.load()
    except native.NativeUnavailable as reason:
        return str(reason)
    return None


def why_not_triton(parameters: Sequence[Tensor]) -> str | None:
    """What keeps the Triton tier from running here, in words; None if nothing does."""
    wanted = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    for p in parameters:
        if p.device.type != wanted or p.dtype != torch.float32:
            return f"a parameter is {p.dtype} on {p.device}, and its kernel is for float32 on a CUDA GPU"
        if p.device != parameters[0].device:
            return f"parameters lie on {parameters[0].device} and {p.device}"
        if memory_order(p) is None:
            return "a parameter lies in memory neither in the order of its indices nor channels last"
        if p.numel() > MOST_ENTRIES:
            return f"a parameter has {p.numel()} entries, and its kernel takes {MOST_ENTRIES} at most"
    return None if find_spec("triton") else "Triton is not installed (it comes with torch for CUDA)"


def available(device: str = "cpu") -> list[str]:
    """The tiers that can run on a device, for SGHMC and SGLD with float32 parameters; the reference is first."""
    parameters = [torch.zeros(1, device=device)]
    return [tier for tier in get_args(Implementation)[1:] if not why_not(tier, parameters)]
