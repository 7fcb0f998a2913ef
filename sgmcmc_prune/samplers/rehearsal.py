"""A rehearsal of a user's own sampler or mass matrix before a chain starts: nothing shall go wrong in silence."""

import copy

import torch
from torch import Tensor

from sgmcmc_prune.samplers.base import Sampler

#: Share of each weight that is its gradient, beside a constant: the gradient of a quadratic potential.
SHARE = 0.01


def rehearse_sampler(sampler: Sampler) -> None:
    """Take a few steps of a copy: freely, with another mass matrix, and under a mask. The sampler stays as it is.

    Raises
    ------
    ValueError
        If weights are not finite, or a masked weight or its momentum is not exactly zero.
    RunError
        For a mass that is none, or below its matrix's floor.
    """
    trial = copy.deepcopy(sampler)
    _step(trial)
    trial.refresh_preconditioner()
    _step(trial)
    trial.freeze()
    mask = {name: _every_other(p) for name, p, _, _ in trial.named_states()}
    trial.set_mask(mask)
    for _ in range(2):
        _step(trial)
    for name, p, state, _ in trial.named_states():
        if not bool(p.isfinite().all()):
            raise ValueError(f"after four steps {name!r} is not finite")
        for what, tensor in (("weights", p), ("momenta", state.get("momentum_buffer", p))):
            if bool((tensor.detach()[~mask[name]] != 0).any()):
                raise ValueError(f"a step moves masked {what} of {name!r}; multiply them by state['mask']")


def _step(sampler: Sampler) -> None:
    for _, p, _, _ in sampler.named_states():
        p.grad = SHARE * (p.detach() + 1)
    sampler.step()


def _every_other(p: Tensor) -> Tensor:
    return torch.arange(p.numel(), device=p.device).view(p.shape) % 2 == 0
