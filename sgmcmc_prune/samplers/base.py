"""What every sampler shares: the scaling contract, counted noise, masks, prior force.

`.grad` holds the gradient of the *mean* negative log-likelihood of a minibatch. With N = `num_data` and a prior p(w),
the potential is U(w) = N * mean NLL(w) - log p(w), and the target is exp(-U(w) / T). Every sampler works with U / N,

    force = grad - (1 / N) d log p(w) / dw,

so the learning rate means what it means for `torch.optim.SGD`.
"""

import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.native.memory import describe, laid_out
from sgmcmc_prune.noise import Stream, choose_seed
from sgmcmc_prune.preconditioners import Identity, Preconditioner
from sgmcmc_prune.priors.base import FusedForm, Prior
from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.samplers import checks, compiled, flag, saved, tiers, triton_tier
from sgmcmc_prune.samplers.step import Memory, NoisePlaces, Step, begin, complete
from sgmcmc_prune.samplers.tiers import Implementation, Noise
from sgmcmc_prune.settings import check_positive

FLAT = FusedForm("flat", {})

#: What the tiers do with a whole parameter group, for samplers with a fused rule; the reference goes tensor by tensor.
TIERS = {"compiled": compiled, "triton": triton_tier}
#: The settings of every sampler.
SHARED = (
    "lr",
    "num_data",
    "temperature",
    "prior",
    "preconditioner",
    "seed",
    "chain",
    "implementation",
    "noise",
)


def _count(num_data: Any) -> Any:
    """A count of NumPy's as Python's; what is none is refused where settings are checked."""
    return int(num_data) if isinstance(num_data, Integral) and not isinstance(num_data, bool) else num_data


class Sampler(Optimizer):
    """Base class: subclasses give `_update`, the rule for one parameter tensor.

    Parameters
    ----------
    params : iterable of (str, Tensor)
        `model.named_parameters()`, or parameter groups of them; a plain iterable of tensors works with a prior that
        holds for any parameter. A group may have its own `lr`, `temperature`, `implementation`, and what `own` names.
    lr : float
        Step size l > 0 of the mean-scaled potential U / N.
    num_data : int
        N, the number of training examples behind the minibatches.
    temperature : float
        T >= 0; 1 is the posterior, 0 its maximisation.
    prior : Prior, float or None
        A prior; a float is the precision of an isotropic Gaussian; None is a flat prior. One that was made for some
        parameters must have been made for these, by name and shape.
    preconditioner : Preconditioner
        Mass matrix M.
    seed, chain : int
        Key of the noise. Without a seed it is drawn from torch's default generator, so that `torch.manual_seed`
        reproduces a sampler and two samplers differ; such a sampler takes the key of a state that it loads.
    implementation : {"auto", "reference", "compiled", "triton"}
        See :mod:`~sgmcmc_prune.samplers.tiers`. All use the same random words and agree to rounding; the choice is in
        `sampler.param_groups[i]["implementation"]`.
    noise : {"gaussian", "rademacher"}
        Rademacher signs need a 32nd of the random words. They have the moments that a scheme of weak order one needs:
        averages are right to the order of the step with either, with another bias at a finite step.

    Raises
    ------
    ValueError, TypeError
        For a setting outside its range or unknown, and for parameters that cannot be sampled; the message names it.

    Attributes
    ----------
    name : str
        By which saved states know whose they are; a class that gives none has its module and its own name.
    integrator : str or None
        How positions and momenta are advanced, as `diagnostics.kinetic_band` takes it ("thermostat" has no band); None
        without momentum.
    own : tuple of str
        The settings that this sampler has beside those of every sampler.
    state_keys : tuple of str
        What the state of a parameter may hold.
    memory : Memory
        What tiers keep between steps; a copy of the sampler makes its own.
    """

    name: ClassVar[str]
    integrator: ClassVar[str | None] = None
    own: ClassVar[tuple[str, ...]] = ()
    state_keys: ClassVar[tuple[str, ...]] = ("mass", "mask")

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Name a class that has no name of its own: with its parent's it would take its parent's states."""
        super().__init_subclass__(**arguments)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        num_data: int,
        temperature: float = 1.0,
        prior: Prior | float | None = None,
        preconditioner: Preconditioner | None = None,
        seed: int | None = None,
        chain: int = 0,
        implementation: Implementation = "auto",
        noise: Noise = "gaussian",
        **own: Any,
    ) -> None:
        checks.check_known(own, (*SHARED, *self.own), type(self).__name__)
        if noise not in ("gaussian", "rademacher"):
            raise ValueError(f"noise is {noise!r}; choose gaussian or rademacher")
        if prior is not None and not isinstance(prior, Prior):
            check_positive("prior precision", prior)  # None is a flat prior
            prior = Gaussian(1 / prior)
        if not isinstance(preconditioner, Preconditioner | None):
            raise TypeError(f"preconditioner is {preconditioner!r}; it must be a sgmcmc_prune.preconditioners object")
        self.memory = Memory()
        self._described: list[Any] = []
        self.prior = prior
        self.preconditioner = preconditioner or Identity()
        self._key_was_drawn = seed is None
        fixed: dict[str, Any] = {
            "num_data": _count(num_data),
            "seed": choose_seed(seed, chain),
            "chain": chain,
            "step": 0,
        }
        fixed |= {"sampler": self.name, "preconditioner": type(self.preconditioner).__name__, "noise": noise}
        fixed |= {"adapting": True, "implementation": implementation}
        super().__init__(params, {"lr": lr, "temperature": temperature, **own, **fixed})
        self._ask_prior()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its parameters take the next offsets of the noise.

        Raises
        ------
        ValueError, TypeError
            As when the sampler is made; nothing is added then.
        """
        param_group = self._named(param_group)
        given = [key for key in param_group if key not in ("params", "param_names", "initial_lr")]
        checks.check_known(given, ("lr", "temperature", "implementation", *self.own), "a parameter group")
        complete = hasattr(self, "prior_names")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "optimizer contains a parameter group with duplicate")  # refused below
            super().add_param_group(param_group)
        try:
            self._admit(self.param_groups[-1], self.param_groups[:-1])
            if complete:
                self._ask_prior()
        except Exception:
            self.param_groups.pop()
            raise

    def _admit(self, group: dict[str, Any], earlier: list[dict[str, Any]]) -> None:
        """Complete a group that was added to earlier ones, or refuse it."""
        named = list(zip(group["param_names"], group["params"], strict=True))
        checks.check_distinct(
            named, [pair for g in earlier for pair in zip(g["param_names"], g["params"], strict=True)]
        )
        for name, p in named:
            checks.check_parameter(name, p)
        self._check_settings(group)
        group["offset"] = sum(p.numel() for g in earlier for p in g["params"])
        group["implementation"] = tiers.choose(group["implementation"], group["params"], self._fused())
        self._places = [(p.shape, p.dtype, p.device) for g in self.param_groups for p in g["params"]]
        if earlier:
            group["step"], group["adapting"] = earlier[-1]["step"], earlier[-1]["adapting"]

    @property
    def prior(self) -> Prior | None:
        """The prior; another is asked for the names of its parameters as the first was."""
        return self._prior

    @prior.setter
    def prior(self, prior: Prior | None) -> None:
        before, self._prior = getattr(self, "_prior", None), prior
        self.memory.tables.clear()
        self._described = []
        if hasattr(self, "prior_names"):
            try:
                self._ask_prior()
            except (ValueError, TypeError):
                self._prior = before
                raise

    def _ask_prior(self) -> None:
        """Learn by which name the prior knows each parameter."""
        params = {name: p for name, p, _, _ in self.named_states()}
        self.prior_names = {name: name for name in params} if self.prior is None else self.prior.check(params)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        """Refuse settings of a group, wherever they come from."""
        checks.check_settings(group)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: everything but pointers and hooks."""
        kept = ("_prior", "prior_names", "preconditioner", "_key_was_drawn", "_places")
        return {**super().__getstate__(), **{key: getattr(self, key) for key in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        super().__setstate__({**state, "memory": Memory(), "_described": []})

    def _named(self, param_group: dict[str, Any]) -> dict[str, Any]:
        """Give parameters without names their positions, counted over all groups, as names."""
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else params if isinstance(params, set) else list(params)
        if not params:
            return {**param_group, "params": [], "param_names": []}
        if "param_names" in param_group or not all(isinstance(p, Tensor) for p in params):
            return {**param_group, "params": params}
        first = sum(len(group["params"]) for group in self.param_groups)
        return {**param_group, "params": [(str(first + i), p) for i, p in enumerate(params)]}

    def configure(self, **settings: float) -> None:
        """Set `lr`, `temperature` or one of `own` in every group, checked."""
        checks.check_known(settings, ("lr", "temperature", *self.own), "configure")
        for group in self.param_groups:
            self._check_settings({**group, **settings})
        for group in self.param_groups:
            group.update(settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter by one step of the sampler; those with requires_grad False rest.

        Raises
        ------
        ValueError, TypeError, RunError
            For a setting or a gradient that cannot be used, before anything has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        named = [pair for g in self.param_groups for pair in zip(g["param_names"], g["params"], strict=True)]
        step = self.param_groups[0]["step"]
        for group in self.param_groups:
            self._check_settings(group)  # a scheduler may have taken lr to zero
        checks.check_gradients(named, step)
        self.follow_memory()
        begun = [begin(group, self.memory) if self._tier(group) else None for group in self.param_groups]
        if not all(self._all_finite(*pair) for pair in zip(self.param_groups, begun, strict=True)):
            raise checks.not_finite(named, step)
        for group, collected in zip(self.param_groups, begun, strict=True):
            if collected is not None:
                self.complete(collected)
                self._tier(group).take(collected)
            else:
                self._step_group(group)
            group["step"] += 1
        return loss

    def _tier(self, group: dict[str, Any]) -> Any:
        """The tier that takes whole steps of a group; None: the reference goes tensor by tensor."""
        return TIERS.get(group["implementation"]) if self._fused() else None

    def complete(self, step: Step) -> None:
        """Collect what a tier is told: the form of the prior, or the force where it has none, and what is kept."""
        group, states = step.group, [self.state[p] for p in step.parameters]
        adapting = group["adapting"] and self.preconditioner.adapts
        forms: list[FusedForm] = []
        forces: dict[int, Tensor] = {}
        for row, (name, p) in enumerate(zip(step.names, step.parameters, strict=True)):
            form = self.prior.fused_form(self.prior_names[name]) if self.prior is not None else FLAT
            if form is None or adapting:
                form, forces[row] = FLAT, self.force(name, p, group["num_data"])
            if adapting:
                self.preconditioner.observe(states[row], forces[row])
            forms.append(form)
        complete(step, forms, forces, states, self._momentum(step))

    def _momentum(self, step: Step) -> tuple[list[Tensor], float] | None:
        """Buffers and their factor, of a sampler that has a momentum."""
        return None

    def follow_memory(self) -> None:
        """Give tables and state the memory of the parameters where that has changed; before a step begins.

        Raises
        ------
        ValueError
            If a parameter has another shape, type or device than when the sampler was made, or a layout that the tier
            cannot take.
        """
        described = describe([p for group in self.param_groups for p in group["params"]])
        if described == self._described:
            return
        checks.check_places([(name, p) for name, p, _, _ in self.named_states()], self._places)
        for group in self.param_groups:
            tiers.choose(group["implementation"], group["params"], self._fused())  # raises if it cannot run any more
        for _, p, state, _ in self.named_states():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                    state[key] = laid_out(value, p)
        self.memory.tables.clear()
        self._described = described

    def check(self) -> None:
        """Raise RunError if an earlier step on a GPU had a gradient that was not finite: waits for the device."""
        flag.check(self.memory)

    def _all_finite(self, group: dict[str, Any], begun: Step | None) -> bool:
        if begun is not None:
            return bool(self._tier(group).all_finite(begun))
        moved = [p for p in group["params"] if checks.moves(p)]
        if not moved or moved[0].device.type == "cpu":
            return checks.all_finite(moved)
        flag.raise_flag(self.memory, [p.grad for p in moved if p.grad is not None], group["step"])
        return True

    def _fused(self) -> bool:
        """Whether the faster tiers do a whole step of this sampler; if not, `compiled` makes the noise alone."""
        return False

    def _step_group(self, group: dict[str, Any]) -> None:
        noise = self._noise(group, Stream.LANGEVIN) if group["temperature"] > 0 else None
        for i, (name, p) in enumerate(zip(group["param_names"], group["params"], strict=True)):
            if checks.moves(p):
                self._step_parameter(name, p, noise[i] if noise is not None else None, group)

    def _step_parameter(self, name: str, p: Tensor, noise: Tensor | None, group: dict[str, Any]) -> None:
        state = self.state[p]
        force = self.force(name, p, group["num_data"])
        if group["adapting"]:
            self.preconditioner.observe(state, force)
        self._update(p, force, noise, state, group)

    @staticmethod
    def _noise(group: dict[str, Any], stream: Stream) -> list[Tensor]:
        """Noise for every parameter of a group at its current step, of its type."""
        if not group["params"]:
            return []
        return [z.to(p) for z, p in zip(compiled.noise_of_parameters(group, stream), group["params"], strict=True)]

    def force(self, name: str, p: Tensor, num_data: int) -> Tensor:
        """d(U / N) / dw on the minibatch: the gradient plus the prior's share, of which a masked weight has none."""
        assert p.grad is not None
        if self.prior is None:
            return p.grad
        share = self.prior.potential_gradient(self.prior_names[name], p)
        mask = self.state[p].get("mask") if p in self.state else None
        if mask is not None:  # a density may have its pole at zero, and infinity times zero is no zero
            share = torch.where(mask, share, 0.0)
        return p.grad.add(share, alpha=1 / num_data)

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        raise TypeError(f"the sampler {type(self).__name__} has no _update, its rule for one tensor")

    @staticmethod
    def _arguments(state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments that every update rule takes."""
        settings = {key: group[key] for key in ("lr", "momentum", "temperature", "num_data") if key in group}
        return {**settings, "mass": state.get("mass"), "mask": state.get("mask")}

    def momentum_squares(self) -> dict[str, tuple[float, int]]:
        """By parameter, the square m' M^-1 m of the momentum and its dimension; none for a sampler without."""
        return {}

    def refresh_preconditioner(self) -> None:
        """Recompute the mass matrix from the gradients seen since the start; once frozen it stays as it is.

        Raises
        ------
        RunError
            If a mass is not positive and finite, or below the `min_mass` that its matrix declares.
        """
        adapting = [(name, p, state) for name, p, state, group in self.named_states() if group["adapting"]]
        self.preconditioner.refresh([state for _, _, state in adapting])
        for name, p, state in adapting:
            if "mass" in state:
                checks.check_mass(self.preconditioner, name, p, state["mass"])

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
        mask = check_mask(mask, {name: p for name, p, _, _ in self.named_states()})
        for name, p, state, _ in self.named_states():
            if name in mask:
                state["mask"] = laid_out(mask[name], p)
                p.mul_(state["mask"])
                if "momentum_buffer" in state:
                    state["momentum_buffer"].mul_(state["mask"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in copies of the parameters' type, memory order and device.

        Raises
        ------
        ValueError, TypeError
            If it is the state of another chain (another sampler, preconditioner, num_data, seed or chain) or of other
            parameters, by name or shape. Nothing is changed then.
        """
        groups = state_dict["param_groups"]
        saved.check_same_chain(groups, self.param_groups, self._key_was_drawn)
        for old in groups:
            self._check_settings(old)
        numbers = [number for old in groups for number in old["params"]]
        known = {*self.state_keys, *self.preconditioner.state_keys}
        states = [
            saved.restored(name, p, state_dict["state"].get(number, {}), known, self._needed(group))
            for number, (name, p, _, group) in zip(numbers, self.named_states(), strict=True)
        ]
        own = ("implementation", "param_names", "offset", "places")
        here = [{key: group[key] for key in own if key in group} for group in self.param_groups]
        groups = [{key: value for key, value in old.items() if key != "places"} for old in groups]
        super().load_state_dict({"state": {}, "param_groups": groups})
        for group, kept in zip(self.param_groups, here, strict=True):
            group.update(kept)
        for (_, p, _, _), state in zip(self.named_states(), states, strict=True):
            self.state[p] = state

    def take_noise_of(self, places: Mapping[str, Tensor]) -> None:
        """Give each weight the noise of its place in a larger chain with this key, instead of its own.

        Parameters
        ----------
        places : mapping of str to int Tensor
            For every parameter, shaped like it: the positions in that chain, ascending, as its noise counts them.

        Raises
        ------
        ValueError
            If a group is stepped by Triton, whose kernel makes its noise by itself.
        """
        for group in self.param_groups:
            if group["implementation"] == "triton":
                raise ValueError("the Triton tier makes noise in order; use implementation 'reference' with places")
            flat = [places[name].flatten() for name in group["param_names"]]
            if flat:
                group["offset"] = min(int(each[0]) for each in flat if len(each))
                numbers = torch.cat(flat) - group["offset"]
                group["places"] = NoisePlaces(numbers, int(numbers[-1]) + 1)

    def _needed(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """What a saved state of a parameter of this group must hold."""
        return ()

    def named_states(self) -> list[tuple[str, Tensor, dict[str, Any], dict[str, Any]]]:
        """Every (name, parameter, state, group), in the order of the noise offsets."""
        return [
            (name, p, self.state[p], group)
            for group in self.param_groups
            for name, p in zip(group["param_names"], group["params"], strict=True)
        ]
