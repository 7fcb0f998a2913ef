r"""The group spike-and-slab prior, in three modes of one object.

For a group g of |g| weights in layer l, with an indicator gamma_g,

    w_g | gamma_g = 0 ~ N(0, v0 I)  (spike),      w_g | gamma_g = 1 ~ N(0, v1 I)  (slab),      P(gamma_g = 1) = pi_l.

Given w, the indicators are independent, with log-odds

    eta_g(w) = log(pi / (1 - pi)) + |g|/2 log(v0 / v1) + |w_g|^2 / 2 (1 / v0 - 1 / v1),       r_g = sigmoid(eta_g).

- `marginal`: the indicators are summed out; -d log p(w) / dw = (r_g / v1 + (1 - r_g) / v0) w with r_g at the current
  w. The target is p(w | D) itself.
- `gibbs`: indicators are sampled from Bernoulli(r_g) between steps, and w moves given them. The target is
  p(w, gamma | D) as the step goes to zero; at a finite step the fresh indicators make the prior's force noisy, which
  heats the chain as minibatches do. For reported inclusion probabilities `marginal` is the sharper tool.
- `em`: r_g is held between E-steps, as in EMVS and in Ke and Fan (2022). The target is a Gaussian posterior with *held*
  precisions, not the mixture posterior; the r_g of its draws are responsibilities, not inclusion probabilities.

The spike may be a Laplace density instead (`spike="laplace"`): see `priors/layer.py`.

At temperature T != 1, `gibbs` and `em` temper the joint density of (w, gamma), so the log-odds are eta / T, while
`marginal` tempers log p(w): the two agree at T = 1 only.

References
----------
George, McCulloch (JASA 1993); Rockova, George: EMVS (JASA 2014); Xu, Ghosh: Bayesian variable selection and estimation
for group lasso (Bayesian Analysis 2015); Ke, Fan (arXiv 2210.12957).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.noise import Stream, choose_seed, random_words, uniform
from sgmcmc_prune.priors.base import (
    FITTED,
    FusedForm,
    Prior,
    load_layers,
    same_parameters,
    total,
    without_memory,
)
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.gaussian import gaussian_form, gaussian_log_density
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.layer import LAYERS, Layer
from sgmcmc_prune.settings import check_number, check_positive, require

Mode = Literal["marginal", "gibbs", "em"]
#: Stands for temperature zero where log-odds are divided by it.
COLDEST = 1e-100
Spike = Literal["gaussian", "laplace"]
#: Nats from which a valley between spike and slab is said to be seldom crossed.
DEEP = 5.0


def _valley(layer: Layer) -> float:
    r"""Depth in nats of the valley between the spike's and the slab's modes of the radius |w_g| of the largest group.

    For n weights both densities of log |w_g| fall by n / 2 (a - 1 - log a) from their modes to the radius at which they
    are equal, a = log(v1 / v0) / (v1 / v0 - 1). (At pi = 1/2; there the sum of both is twice each, which is left out.)
    """
    ratio = layer.slab_variance / layer.spike_variance
    a = math.log(ratio) / (ratio - 1)
    return float(layer.groups.group_size.max()) / 2 * (a - 1 - math.log(a))


class SpikeSlab(Prior):
    """Spike-and-slab prior on chosen parameters, a Gaussian on the others.

    Parameters
    ----------
    params : mapping of str to Tensor
        All parameters of the model, by name, in order (`dict(model.named_parameters())`).
    group : str or mapping of str to GroupMap
        Kind of group (see :class:`GroupMap`) for every parameter with two dimensions or more; or the sparse parameters
        with their own group maps.
    mode : {"marginal", "gibbs", "em"}
    spike : {"gaussian", "laplace"}
        Density of the spike; `spike_variance` is its variance in either case.
    inclusion_rate, spike_variance, slab_variance : float
        Starting pi in (0, 1) and 0 < v0 < v1.
    dense_variance : float
        Gaussian prior variance of the parameters that are not sparse (biases, normalisation).
    seed, chain : int
        Key of the indicator noise (`gibbs`); without a seed it is drawn from torch's default generator.

    Raises
    ------
    ValueError
        If pi is not inside (0, 1), or the spike is not narrower than the slab.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> prior = SpikeSlab(dict(model.named_parameters()), spike_variance=0.01, slab_variance=0.5)
    >>> prior.log_odds("weight", model.weight).shape  # of inclusion, a number for each group
    torch.Size([6])
    """

    settings = ("mode", "spike", "inclusion_rate", "spike_variance", "slab_variance", "dense_variance")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        group: str | Mapping[str, GroupMap] = "weight",
        mode: Mode = "marginal",
        spike: Spike = "gaussian",
        inclusion_rate: float = 0.5,
        spike_variance: float = 1e-4,
        slab_variance: float = 0.05,
        dense_variance: float = 1.0,
        seed: int | None = None,
        chain: int = 0,
    ) -> None:
        if mode not in ("marginal", "gibbs", "em"):
            raise ValueError(f"mode is {mode!r}; choose marginal, gibbs or em")
        if spike not in LAYERS:
            raise ValueError(f"spike is {spike!r}; choose gaussian or laplace")
        check_hyperparameters(inclusion_rate, spike_variance, slab_variance)
        check_positive("dense_variance", dense_variance)
        if isinstance(group, str):
            group = {n: GroupMap(group, tuple(p.shape)) for n, p in params.items() if p.dim() > 1}
        self.mode, self.spike, self.seed, self.chain = mode, spike, choose_seed(seed, chain), chain
        self.made_for = without_memory(params)
        self.dense_variance = dense_variance
        self.layers: dict[str, Layer] = {}
        offset = 0
        for name, groups in group.items():
            if name not in params or tuple(params[name].shape) != groups.shape:
                found = tuple(params[name].shape) if name in params else "no such parameter"
                raise ValueError(f"group map of {name!r} has shape {groups.shape}; the model has {found}")
            w = params[name].detach()
            layer = LAYERS[spike](groups, inclusion_rate, spike_variance, slab_variance, offset)
            layer.alive = torch.ones(groups.num_groups, dtype=torch.bool, device=w.device)
            # Everything starts in the slab: a held spike would trap weights before the data have spoken.
            layer.held = torch.ones(groups.num_groups, dtype=w.dtype, device=w.device)
            self.layers[name] = layer
            offset += groups.num_groups

    @classmethod
    def configured(cls, settings: Mapping[str, Any], params: Mapping[str, Tensor], **context: Any) -> "SpikeSlab":
        """Indicators of the prunable parameters, in their groups."""
        chosen = {**settings, **context["options"]}
        return cls(params, group=context["groups"], seed=context["seed"], chain=context["chain"], **chosen)

    def cut(self, params: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> "SpikeSlab":
        """With the groups of the weights that stay, in their sizes, and with their indicators' noise."""
        smaller = copy.copy(self)
        smaller.made_for = without_memory(params)
        smaller.layers = {}
        for name, layer in self.layers.items():
            places = layer.places
            groups, found = layer.groups, torch.arange(layer.groups.num_groups, device=layer.alive.device)
            if name in positions:
                groups, found = layer.groups.cut(positions[name])
                places = found if places is None else places[found]
            held, alive = layer.held[found], layer.alive[found]
            smaller.layers[name] = replace(layer, groups=groups, places=places, held=held, alive=alive)
        return smaller

    def departures(self, settings: EMSettings) -> list[str]:
        """Fitted hyperparameters, held responsibilities, and groups that chains can hardly switch on and off."""
        held = "mode em: the chain targets a Gaussian posterior with held precisions, not the mixture posterior"
        fitted = [FITTED] if settings.kind != "fixed" else []
        return [*fitted, *([held] if self.mode == "em" else self._valleys())]

    def _valleys(self) -> list[str]:
        """The deepest valley between spike and slab, in words, if chains will not often cross it."""
        layers = [layer for layer in self.layers.values() if type(layer) is Layer and layer.groups.num_groups]
        if not layers:
            return []
        deepest = max(layers, key=_valley)
        if _valley(deepest) <= DEEP:
            return []
        size, spike, slab = deepest.groups.group_size.max(), deepest.spike_variance, deepest.slab_variance
        return [
            f"groups of {size:.0f} weights with spike_variance {spike:g} and slab_variance {slab:g}: in the prior a "
            f"valley of {_valley(deepest):.0f} nats lies between spike and slab, which a chain seldom crosses, so that "
            "inclusion probabilities may say where it began; a wider spike makes it shallower"
        ]

    def indicator_temperature(self, temperature: float) -> float:
        """Temperature of p(gamma | w) when the chain's is T: T in the modes that temper the joint density, else 1.

        At T = 0 it is tiny instead, so that indicators are hard but log-odds stay finite, and in order.
        """
        return 1.0 if self.mode == "marginal" else max(temperature, COLDEST)

    def hyperparameters(self, name: str) -> dict[str, float]:
        """`inclusion_rate`, `spike_variance` and `slab_variance` of a sparse layer; `dense_variance` of another."""
        layer = self.layers.get(name)
        if layer is None:
            return {"dense_variance": self.dense_variance}
        return {key: float(getattr(layer, key)) for key in ("inclusion_rate", "spike_variance", "slab_variance")}

    def log_odds(self, name: str, w: Tensor, temperature: float = 1.0) -> Tensor:
        """Conditional log-odds of inclusion of each group given w, shape (G,), float64.

        In the modes that temper the joint density they are divided by the temperature.
        """
        return self.layers[name].log_odds(w.detach().double()) / self.indicator_temperature(temperature)

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """-d log p / dw: each weight times its precision (given r(w), or the held r or indicator)."""
        layer = self.layers.get(name)
        if layer is None:
            return w / self.dense_variance
        if self.mode != "marginal":
            return layer.potential_gradient(w, layer.held, 1 - layer.held)
        odds = layer.log_odds(w)
        return layer.potential_gradient(w, torch.sigmoid(odds), torch.sigmoid(-odds))

    def fused_form(self, name: str) -> FusedForm | None:
        """Held precisions, or the marginal mixture of single weights; other forms go through torch."""
        if type(self) is not SpikeSlab:  # a subclass may have another force
            return None
        layer = self.layers.get(name)
        if layer is None:
            return gaussian_form(self.dense_variance)
        if type(layer) is not Layer:
            return None
        spike, slab = 1 / layer.spike_variance, 1 / layer.slab_variance
        if self.mode != "marginal":
            return FusedForm("held", {"spike": spike, "slab": slab}, layer.groups.expand(layer.held))
        if layer.groups.kind != "weight":
            return None
        return _mixture_form(layer.inclusion_rate, spike, slab)

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w), indicators summed out (`marginal`), or log p(w | what is held) (`gibbs`, `em`); float64.

        Masked groups are left out: their weights are constants.
        """
        dense = gaussian_log_density((w for n, w in params.items() if n not in self.layers), self.dense_variance)
        return dense + total(
            self._layer_log_density(layer, params[name].double()) for name, layer in self.layers.items()
        )

    def _layer_log_density(self, layer: Layer, w: Tensor) -> Tensor:
        if self.mode != "marginal":
            per_group = layer.held_log_density(w)
        else:
            # log(slab + spike) = log slab + softplus(-eta), without forming either density.
            per_group = layer.slab_log_density(w) + F.softplus(-layer.log_odds(w))
        return per_group[layer.alive.to(w.device)]

    def check(self, params: Mapping[str, Tensor]) -> dict[str, str]:
        """By which name this prior knows each parameter of a sampler; ValueError if it was not made for them."""
        return same_parameters(self.made_for, params)

    def sample_latent(self, params: Mapping[str, Tensor], step: int, temperature: float = 1.0) -> None:
        """Draw the indicators, in mode `gibbs`."""
        if self.mode == "gibbs":
            self.sample_indicators(params, step, temperature)

    @torch.no_grad()
    def sample_indicators(self, params: Mapping[str, Tensor], step: int, temperature: float = 1.0) -> None:
        """Gibbs step: gamma_g ~ Bernoulli(r_g(w)), a pure function of (seed, chain, step, group)."""
        for name, layer in self.layers.items():
            device = params[name].device
            words = random_words(self.seed, self.chain, Stream.INDICATOR, step, layer.offset, layer.total, device)
            if layer.places is not None:
                words = words[layer.places]
            r = torch.sigmoid(self.log_odds(name, params[name], temperature))
            layer.held = (uniform(words) <= r).to(params[name].dtype)

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Tell the prior which groups a mask removed (groups with no kept weight)."""
        mask = check_mask(mask, self.made_for)
        for name, layer in self.layers.items():
            if name in mask:
                layer.alive = layer.groups.sum(mask[name].to(layer.held)) > 0

    def state_dict(self) -> dict[str, Any]:
        """Mode and spike, the noise's key, and hyperparameters and indicator states by layer."""
        layers = {
            name: {
                "inclusion_rate": layer.inclusion_rate,
                "spike_variance": layer.spike_variance,
                "slab_variance": layer.slab_variance,
                "held": layer.held,
                "alive": layer.alive,
            }
            for name, layer in self.layers.items()
        }
        return {"mode": self.mode, "spike": self.spike, "seed": self.seed, "chain": self.chain, "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, for the same mode, spike and layers; older states name neither."""
        for name in ("mode", "spike"):
            saved, own = state.get(name, getattr(self, name)), getattr(self, name)
            require(saved == own, f"the saved prior has {name} {saved!r}; this one has {own!r}")
        load_layers(self.layers, self.state_dict()["layers"], state["layers"])
        self.seed, self.chain = state["seed"], state["chain"]


@lru_cache(maxsize=1024)
def _mixture_form(inclusion_rate: float, spike: float, slab: float) -> FusedForm:
    """The form of one layer, from its precisions; every step asks for it, and it changes with the hyperparameters."""
    log_odds = math.log(inclusion_rate) - math.log1p(-inclusion_rate) + 0.5 * math.log(slab / spike)
    numbers = {"spike": spike, "slab": slab, "log_odds": log_odds, "slope": 0.5 * (spike - slab)}
    return FusedForm("mixture", numbers)


def check_hyperparameters(inclusion_rate: float, spike_variance: float, slab_variance: float) -> None:
    """Raise TypeError unless they are numbers, ValueError unless 0 < pi < 1 and 0 < v0 < v1."""
    given = {"inclusion_rate": inclusion_rate, "spike_variance": spike_variance, "slab_variance": slab_variance}
    for name, value in given.items():
        check_number(name, value)
    if not 0 < inclusion_rate < 1:
        raise ValueError(f"inclusion_rate is {inclusion_rate}; it must be inside (0, 1)")
    if not 0 < spike_variance < slab_variance < math.inf:
        raise ValueError(
            f"spike_variance is {spike_variance} and slab_variance is {slab_variance}; "
            "they must satisfy 0 < spike < slab"
        )


def smallest_stable_spike(lr: float, num_data: int, min_mass: float, momentum: float) -> float:
    """The narrowest spike variance that a step can follow with a margin of two: v0 = l / (N M_min (1 + beta)).

    Symplectic Euler is stable for l / (N v0 M) < 2 (1 + beta).
    """
    return lr / (num_data * min_mass * (1 + momentum))
