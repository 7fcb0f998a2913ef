"""What every sampler shares: the scaling contract, counted noise, masks, prior force, validation.

`.grad` holds the gradient of the *mean* negative log-likelihood of a minibatch. With N = `num_data` and a prior p(w),
the potential is U(w) = N * mean NLL(w) - log p(w), and the target is exp(-U(w) / T). Every sampler works with U / N,

    force = grad - (1 / N) d log p(w) / dw,

so the learning rate means what it means for `torch.optim.SGD`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sgmcmc_prune.noise import Stream, check_key, standard_normal
from sgmcmc_prune.preconditioners import Identity, Preconditioner
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.gaussian import Gaussian


class Sampler(Optimizer):
    """Base class: subclasses give `_update`, the rule for one parameter tensor.

    Parameters
    ----------
    params : iterable of (str, Tensor)
        `model.named_parameters()`, or parameter groups of them; a plain iterable of tensors works with a flat or
        isotropic prior.
    lr : float
        Step size l > 0 of the mean-scaled potential U / N.
    num_data : int
        N, the number of training examples behind the minibatches.
    temperature : float
        T >= 0; 1 is the posterior, 0 its maximisation.
    prior : Prior, float or None
        A prior; a float is the precision of an isotropic Gaussian; None is a flat prior.
    preconditioner : Preconditioner
        Mass matrix M.
    seed, chain : int
        Key of the noise.

    Raises
    ------
    ValueError, TypeError
        For a setting outside its range; the message names it.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        num_data: int,
        temperature: float = 1.0,
        prior: Prior | float | None = None,
        preconditioner: Preconditioner | None = None,
        seed: int = 0,
        chain: int = 0,
        **defaults: Any,
    ) -> None:
        if isinstance(num_data, bool) or not isinstance(num_data, int):
            raise TypeError(f"num_data is {num_data!r}; it must be an integer, the number of training examples")
        if num_data <= 0:
            raise ValueError(f"num_data is {num_data}; it must be the number of training examples, at least 1")
        check_key(seed, chain)
        if isinstance(prior, (int, float)):
            if not (prior > 0 and math.isfinite(prior)):
                raise ValueError(f"prior precision is {prior}; it must be finite and > 0 (None is a flat prior)")
            prior = Gaussian(1 / prior)
        self.prior = prior
        self.preconditioner = preconditioner or Identity()
        fixed = {"num_data": num_data, "seed": seed, "chain": chain, "step": 0, "adapting": True}
        super().__init__(params, {"lr": lr, "temperature": temperature, **defaults, **fixed})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its parameters take the next offsets of the noise."""
        super().add_param_group(self._named(param_group))
        group = self.param_groups[-1]
        _check_settings(group)
        for name, p in zip(group["param_names"], group["params"], strict=True):
            if p.is_complex() or p.is_sparse:
                raise TypeError(f"parameter {name!r} is complex or sparse; samplers need dense real parameters")
        earlier = self.param_groups[:-1]
        group["offset"] = sum(p.numel() for g in earlier for p in g["params"])
        if earlier:
            group["step"], group["adapting"] = earlier[-1]["step"], earlier[-1]["adapting"]

    def _named(self, param_group: dict[str, Any]) -> dict[str, Any]:
        """Give parameters without names their positions, counted over all groups, as names."""
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else params if isinstance(params, set) else list(params)
        if "param_names" in param_group or not all(isinstance(p, Tensor) for p in params):
            return {**param_group, "params": params}
        first = sum(len(group["params"]) for group in self.param_groups)
        return {**param_group, "params": [(str(first + i), p) for i, p in enumerate(params)]}

    def configure(self, **settings: float) -> None:
        """Set `lr`, `momentum` or `temperature` of every group, checked."""
        for group in self.param_groups:
            _check_settings({**group, **settings})
        for group in self.param_groups:
            group.update(settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient by one step of the sampler."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check_settings(group)  # a scheduler may have taken lr to zero
            noise = self._noise(group, Stream.LANGEVIN) if group["temperature"] > 0 else None
            for i, (name, p) in enumerate(zip(group["param_names"], group["params"], strict=True)):
                if p.grad is not None:
                    self._step_parameter(name, p, noise[i] if noise is not None else None, group)
            group["step"] += 1
        return loss

    def _step_parameter(self, name: str, p: Tensor, noise: Tensor | None, group: dict[str, Any]) -> None:
        state = self.state[p]
        force = self.force(name, p, group["num_data"])
        if group["adapting"]:
            self.preconditioner.observe(state, force)
        self._update(p, force, noise, state, group)

    @staticmethod
    def _noise(group: dict[str, Any], stream: Stream) -> list[Tensor]:
        """Standard normals for every parameter of a group at its current step: one flat draw, viewed per tensor."""
        params = group["params"]
        sizes = [p.numel() for p in params]
        flat = standard_normal(
            group["seed"], group["chain"], group["step"], group["offset"], sum(sizes), stream, params[0].device
        )
        return [z.view_as(p).to(p) for z, p in zip(flat.split(sizes), params, strict=True)]

    def force(self, name: str, p: Tensor, num_data: int) -> Tensor:
        """d(U / N) / dw on the minibatch: the gradient plus the prior's share."""
        assert p.grad is not None
        if self.prior is None:
            return p.grad
        return p.grad.add(self.prior.potential_gradient(name, p), alpha=1 / num_data)

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        raise NotImplementedError

    def refresh_preconditioner(self) -> None:
        """Recompute the mass matrix from the gradients seen since the start; once frozen it stays as it is."""
        self.preconditioner.refresh(
            self.state[p] for group in self.param_groups if group["adapting"] for p in group["params"]
        )

    def freeze(self) -> None:
        """Stop adapting the mass matrix for good, as collection requires."""
        for group in self.param_groups:
            group["adapting"] = False

    @torch.no_grad()
    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Hold masked weights (False in `mask`) at exactly zero from now on, and clear their momentum.

        Raises
        ------
        ValueError, TypeError
            If a mask is not boolean, or does not belong to a parameter of its shape.
        """
        parameters = {name: p for name, p, _, _ in self.named_states()}
        for name, kept in mask.items():
            if name not in parameters or parameters[name].shape != kept.shape:
                found = tuple(parameters[name].shape) if name in parameters else "no such parameter"
                raise ValueError(f"mask of {name!r} has shape {tuple(kept.shape)}; the sampler has {found}")
            if kept.dtype != torch.bool:
                raise TypeError(f"mask of {name!r} is {kept.dtype}; it must be boolean, True where a weight is kept")
        for name, p, state, _ in self.named_states():
            if name in mask:
                state["mask"] = mask[name].to(p.device).clone()
                p.mul_(state["mask"])
                if "momentum_buffer" in state:
                    state["momentum_buffer"].mul_(state["mask"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        for _, _, state, _ in self.named_states():
            if "mask" in state:  # the base class casts state to the parameter's type
                state["mask"] = state["mask"].bool()

    def named_states(self) -> list[tuple[str, Tensor, dict[str, Any], dict[str, Any]]]:
        """Every (name, parameter, state, group), in the order of the noise offsets."""
        return [
            (name, p, self.state[p], group)
            for group in self.param_groups
            for name, p in zip(group["param_names"], group["params"], strict=True)
        ]


def _check_settings(group: Mapping[str, Any]) -> None:
    """One line for a setting out of range (NaN included)."""
    if not (group["lr"] > 0 and math.isfinite(group["lr"])):
        raise ValueError(f"lr is {group['lr']}; a sampler needs a finite step size > 0")
    if not (group["temperature"] >= 0 and math.isfinite(group["temperature"])):
        raise ValueError(f"temperature is {group['temperature']}; it must be finite and >= 0 (1 is the posterior)")
    if not 0 <= group.get("momentum", 0.0) < 1:
        raise ValueError(f"momentum is {group['momentum']}; it must be in [0, 1)")
