"""What a prior is: a log density and its negative gradient, parameter by parameter, known by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sgmcmc_prune import names
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.groups import GroupMap

#: A departure of every prior whose hyperparameters are learned.
FITTED = "hyperparameters of the prior are fitted to the same data; draws are conditional on them"


class FusedForm(NamedTuple):
    """How a compiled kernel computes a prior's force by itself: each weight times a precision.

    Attributes
    ----------
    kind : str
        "flat", 0; "gaussian", `spike`; "held", held slab + (1 - held) spike; "mixture", the same with the sigmoid
        of `log_odds` + `slope` w^2 instead of what is held.
    numbers : mapping of str to float
        The precisions `spike` and `slab`, and `log_odds` and `slope`, as far as the kind needs them.
    held : Tensor, optional
        Responsibilities or indicators, shaped like the weight.
    """

    kind: str
    numbers: Mapping[str, float]
    held: Tensor | None = None


class Prior(ABC):
    """A prior that factorises over named parameters, given its hyperparameters and latent variables.

    A prior without latent variables, masks or state of its own leaves the methods that are not abstract as they are.
    """

    # ruff: noqa: B027

    #: The settings of a run's `prior` that it reads, beside its options; a run names what is given and not read.
    settings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def configured(
        cls,
        settings: Mapping[str, Any],
        params: Mapping[str, Tensor],
        *,
        options: Mapping[str, Any],
        groups: Mapping[str, GroupMap],
        seed: int,
        chain: int,
        min_variance: float,
    ) -> "Prior":
        """The prior that a run's configuration asks for; one of your own takes the named parameters and what it reads.

        Parameters
        ----------
        settings : mapping of str to object
            Those that it reads, by name.
        params : mapping of str to Tensor
            The trained parameters.
        options : mapping of str to object
            What `--prior.options` gave.
        groups : mapping of str to GroupMap
            The prunable parameters, with the weights that are pruned together.
        seed, chain : int
            Key of latent variables.
        min_variance : float
            The narrowest that the sampler's largest step can follow.
        """
        return cls(params, **settings, **options)  # type: ignore[call-arg]

    @abstractmethod
    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w), a 0-d float64 tensor (normalised)."""

    @abstractmethod
    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """-d log p(w) / dw for the parameter `name`, shaped like `w`."""

    def fused_form(self, name: str) -> FusedForm | None:
        """How a compiled kernel computes this prior's force by itself; None: it cannot."""
        return None

    def check(self, params: Mapping[str, Tensor]) -> dict[str, str]:
        """By which name this prior knows each parameter of a sampler, which asks this when it takes them.

        A prior that holds for any parameter takes all by their own names; one that was made for some parameters
        compares names and shapes (`same_parameters`).

        Raises
        ------
        ValueError
            If the prior was not made for these parameters.
        """
        return {name: name for name in params}

    def sample_latent(self, params: Mapping[str, Tensor], step: int, temperature: float = 1.0) -> None:
        """Gibbs step: draw the prior's latent variables given the weights, a pure function of its seed and `step`."""

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Learn which weights a mask (True = kept) removed."""

    def hyperparameters(self, name: str) -> dict[str, float]:
        """The numbers, as they are now, on which the density of the parameter `name` depends: what a run records."""
        return {}

    def adaptation(self, settings: EMSettings, min_variance: float) -> Any:
        """What learns the hyperparameters during the burn-in, with the methods of `em.EM`; None: they are fixed."""
        return None

    def cut(self, params: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> "Prior":
        """The same prior, with its hyperparameters, of what stays of some parameters.

        Masks and latent variables come with the state that is loaded afterwards.

        Parameters
        ----------
        params : mapping of str to Tensor
            All parameters of the smaller network.
        positions : mapping of str to int Tensor
            Of a parameter that is smaller now, where each of its entries was, counted along the whole.

        Raises
        ------
        TypeError
            If it is not known how this prior goes on.
        """
        raise TypeError(f"a prior of type {type(self).__name__} has no cut(params, positions): no network gets smaller")

    def departures(self, settings: EMSettings) -> list[str]:
        """In which ways draws under it are not draws from the posterior that was stated, in words."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Everything learned or drawn, for a resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def without_memory(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a prior remembers of the parameters that it was made for: names, shapes and types."""
    return {name: p.detach().to("meta") for name, p in params.items()}


def same_parameters(made_for: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> dict[str, str]:
    """By which name of `made_for` each of some parameters is known; ValueError names both sides if one is not."""
    found = names.match(params, made_for)
    if len(set(found.values())) < len(params):
        raise ValueError(
            f"the prior was made for {names.shown(made_for)}, and the sampler has {names.shown(params)}; give both the "
            "same named parameters: SpikeSlab(dict(model.named_parameters())) and SGHMC(model.named_parameters())"
        )
    for name, p in params.items():
        shape = made_for[found[name]].shape
        if shape != p.shape:
            raise ValueError(
                f"the prior was made for {found[name]!r} of shape {tuple(shape)}, and the sampler's {name!r} has shape "
                f"{tuple(p.shape)}; make the prior from this network's parameters"
            )
    return found


def restored(where: str, saved: Any, present: Any) -> Any:
    """A saved value in the type, layout and place of the present one; ValueError if it has another shape."""
    if not isinstance(present, Tensor):
        return saved
    if not isinstance(saved, Tensor) or saved.shape != present.shape:
        found = tuple(saved.shape) if isinstance(saved, Tensor) else saved
        raise ValueError(f"the saved prior's {where} has shape {found}; this one's has {tuple(present.shape)}")
    return torch.empty_like(present).copy_(saved)


Saved = Mapping[str, Mapping[str, Any]]


def load_layers(layers: Mapping[str, Any], present: Saved, saved: Saved) -> None:
    """Restore saved attributes of layers, all of them or none; ValueError if they are those of other layers."""
    if list(saved) != list(present):
        raise ValueError(f"the saved prior has layers {names.shown(saved)}; this one has {names.shown(present)}")
    values: dict[tuple[str, str], Any] = {}
    for name, now in present.items():
        if set(saved[name]) != set(now):
            raise ValueError(
                f"the saved prior has {names.shown(saved[name])} of {name!r}; this one has {names.shown(now)}"
            )
        values |= {(name, key): restored(f"{key} of {name!r}", saved[name][key], now[key]) for key in now}
    for (name, key), value in values.items():
        setattr(layers[name], key, value)


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of all entries of some float64 tensors, on whatever devices: a 0-d float64 tensor on the CPU."""
    result = torch.zeros((), dtype=torch.float64)
    for term in terms:
        result = result + term.sum().cpu()
    return result
