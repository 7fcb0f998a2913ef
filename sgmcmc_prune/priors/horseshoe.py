r"""The regularised horseshoe prior, with its scales held between Gibbs steps.

Its marginal density has no closed form, so the scales are part of the state, as the indicators are in mode "gibbs" of
the spike-and-slab prior: the sampler moves w given the scales, `sample_latent` draws the scales given w. Per layer,

    w_j | s_j ~ N(0, 1 / (1 / s_j^2 + 1 / c^2)),      s_j ~ C+(0, tau), s_j^2 >= s_min^2,      tau ~ C+(0, tau_0):

the slab variance c^2 bounds what the half-Cauchy tails leave unshrunk, and s_min^2 is the narrowest scale that the
sampler's step can follow. The slab enters as the factor N(w_j; 0, c^2), an observation of 0 with variance c^2
(Nishimura and Suchard), not through the normaliser of p(w_j | s_j) (Piironen and Vehtari): all conditionals are then
closed. With auxiliary nu_j and xi,

    s_j^2 | . ~ IG((1 + 1/T) / 2, 1 / nu_j + w_j^2 / (2 T))  on s_j^2 >= s_min^2,
    nu_j  | . ~ IG(1, 1 / tau^2 + 1 / s_j^2),
    tau^2 | . ~ IG((G + 1) / 2, 1 / xi + sum_j 1 / nu_j),               xi   | . ~ IG(1, 1 / tau_0^2 + 1 / tau^2),

and at T = 1 the marginal density of one weight, given tau, is proportional to N(w; 0, c^2) times the horseshoe's. The
temperature tempers likelihood and p(w | scales), which is normalised; the hyperprior of the scales is as it stands, so
that the target does not depend on how a scale is parametrised. Scales redrawn at a finite step make the prior's force
noisy, which heats the chain, as indicators do.

References
----------
Piironen, Vehtari: Sparsity information and regularization in the horseshoe and other shrinkage priors (EJS 2017).
Nishimura, Suchard: Shrinkage with shrunken shoulders: Gibbs sampling shrinkage model posteriors with guaranteed
convergence rates (Bayesian Analysis 2023).
Makalic, Schmidt: A simple sampler for the horseshoe estimator (IEEE Signal Processing Letters 2016).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.noise import Stream, choose_seed, random_words, uniform
from sgmcmc_prune.priors.base import Prior, load_layers, same_parameters, total, without_memory
from sgmcmc_prune.priors.gaussian import gaussian_log_density
from sgmcmc_prune.settings import check_number, check_positive


@dataclass
class Scales:
    """State of one layer: s^2 and nu (shaped like the weight), tau^2 and xi, the kept weights, its noise's offset."""

    local_variance: Tensor
    auxiliary: Tensor
    global_variance: float
    global_auxiliary: float
    alive: Tensor
    offset: int


class Horseshoe(Prior):
    """Regularised horseshoe on weight matrices and kernels, a Gaussian on the other parameters.

    Parameters
    ----------
    params : mapping of str to Tensor
        All parameters of the model, by name, in order.
    global_scale : float
        tau_0 > 0; with D weights of which p_0 are expected to matter, about p_0 / (D - p_0) / sqrt(N) in the units of
        a standardised regression (Piironen and Vehtari, eq. 3.12).
    slab_variance : float
        c^2 > 0.
    min_variance : float
        s_min^2, in (0, slab_variance).
    dense_variance : float
        Variance of the parameters with fewer than two dimensions.
    seed, chain : int
        Key of the Gibbs steps; without a seed it is drawn from torch's default generator.
    """

    settings = ("slab_variance", "dense_variance")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        global_scale: float = 0.01,
        slab_variance: float = 1.0,
        min_variance: float = 1e-6,
        dense_variance: float = 1.0,
        seed: int | None = None,
        chain: int = 0,
    ) -> None:
        check_positive("global_scale", global_scale)
        check_positive("slab_variance", slab_variance)
        check_positive("dense_variance", dense_variance)
        check_number("min_variance", min_variance)
        if not 0 < min_variance < slab_variance:
            raise ValueError(f"min_variance is {min_variance}; it must be above 0 and below slab_variance")
        self.global_scale, self.slab_variance = global_scale, slab_variance
        self.min_variance, self.dense_variance = min_variance, dense_variance
        self.seed, self.chain = choose_seed(seed, chain), chain
        self.made_for = without_memory(params)
        self.layers: dict[str, Scales] = {}
        #: Of a weight that was cut, where its noise is in that of the whole: (2, *weight).
        self.places: dict[str, Tensor] = {}
        offset = 0
        for name, p in params.items():
            if p.dim() > 1:
                # All weights start in the slab, before the data have spoken.
                start, variance = torch.full_like(p.detach(), slab_variance), global_scale**2
                alive = torch.ones_like(start, dtype=torch.bool)
                self.layers[name] = Scales(start, torch.full_like(start, variance), variance, variance, alive, offset)
                offset += 2 * p.numel()

    @classmethod
    def configured(cls, settings: Mapping[str, Any], params: Mapping[str, Tensor], **context: Any) -> "Horseshoe":
        """With the slab of the configuration; the option `global_scale` is its own."""
        chosen = {**settings, "min_variance": max(context["min_variance"], 1e-12), **context["options"]}
        return cls(params, seed=context["seed"], chain=context["chain"], **chosen)

    def cut(self, params: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> "Horseshoe":
        """With the scales of the weights that stay, and with their noise."""
        smaller = copy.copy(self)
        smaller.made_for, smaller.layers, smaller.places = without_memory(params), dict(self.layers), dict(self.places)
        for name in self.layers.keys() & positions.keys():
            at, layer = positions[name], self.layers[name]
            local, auxiliary, alive = (
                whole.flatten()[at] for whole in (layer.local_variance, layer.auxiliary, layer.alive)
            )
            smaller.layers[name] = replace(layer, local_variance=local, auxiliary=auxiliary, alive=alive)
            whole = torch.arange(2 * layer.alive.numel(), device=at.device).view(2, -1)
            smaller.places[name] = self.places.get(name, whole).flatten(1)[:, at]
        return smaller

    def hyperparameters(self, name: str) -> dict[str, float]:
        """`global_scale` of one layer as it was drawn last, tau; `dense_variance` of another parameter."""
        layer = self.layers.get(name)
        if layer is None:
            return {"dense_variance": self.dense_variance}
        return {"global_scale": math.sqrt(layer.global_variance)}

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """(1 / s^2 + 1 / c^2) w."""
        layer = self.layers.get(name)
        return w / self.dense_variance if layer is None else self.precision(layer) * w

    def precision(self, layer: Scales) -> Tensor:
        """Held precision 1 / s^2 + 1 / c^2 of each weight."""
        return layer.local_variance.reciprocal() + 1 / self.slab_variance

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w | scales), float64; masked weights are left out."""
        dense = gaussian_log_density((w for n, w in params.items() if n not in self.layers), self.dense_variance)
        return dense + total(self._layer_log_density(layer, params[name]) for name, layer in self.layers.items())

    def _layer_log_density(self, layer: Scales, w: Tensor) -> Tensor:
        precision = self.precision(layer).double()
        density = 0.5 * ((precision / (2 * math.pi)).log() - precision * w.double().square())
        return density[layer.alive]

    def check(self, params: Mapping[str, Tensor]) -> dict[str, str]:
        """By which name this prior knows each parameter of a sampler; ValueError if it was not made for them."""
        return same_parameters(self.made_for, params)

    @torch.no_grad()
    def sample_latent(self, params: Mapping[str, Tensor], step: int, temperature: float = 1.0) -> None:
        """One sweep over s, nu, tau and xi given w; without temperature there are no draws, and the scales stay."""
        if temperature == 0:
            return
        for name, layer in self.layers.items():
            w = params[name].detach()
            rate = layer.auxiliary.reciprocal() + w.square() / (2 * temperature)
            u, v = self._uniforms(name, step)
            layer.local_variance = inverse_gamma_above(u, (1 + 1 / temperature) / 2, rate, self.min_variance)
            auxiliary_rate = layer.local_variance.reciprocal() + 1 / layer.global_variance
            layer.auxiliary = auxiliary_rate / -v.log()
        self._sample_global(step)

    def _uniforms(self, name: str, step: int) -> Tensor:
        """Two uniforms in (0, 1) for each weight, shape (2, *weight)."""
        layer, places = self.layers[name], self.places.get(name)
        like = layer.local_variance
        count = 2 * like.numel() if places is None else int(places.max()) + 1
        words = random_words(self.seed, self.chain, Stream.INDICATOR, step, layer.offset, count, like.device)
        words = words.view(2, *like.shape) if places is None else words[places]
        return uniform(words).clamp_(max=1 - 2**-24).to(like)

    def _sample_global(self, step: int) -> None:
        """Draw tau^2 and xi of each layer; masked weights say nothing about the global scale."""
        layers = self.layers.values()
        inverses = [layer.auxiliary.double().reciprocal().where(layer.alive, 0.0).sum() for layer in layers]
        counts = [layer.alive.sum().double() for layer in layers]
        # A GPU is waited for once, and not for every layer.
        together = torch.stack([torch.stack(inverses), torch.stack(counts)], 1).tolist() if inverses else []
        for index, (layer, (inverse, kept)) in enumerate(zip(layers, together, strict=True)):
            generator = np.random.default_rng([self.seed, self.chain, step, index])
            rate = 1 / layer.global_auxiliary + inverse
            layer.global_variance = rate / generator.standard_gamma((kept + 1) / 2)
            rate = 1 / self.global_scale**2 + 1 / layer.global_variance
            layer.global_auxiliary = rate / generator.standard_gamma(1.0)

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Leave masked weights out of the log density and of the global scale."""
        mask = check_mask(mask, self.made_for)
        for name, layer in self.layers.items():
            if name in mask:
                layer.alive = mask[name].to(layer.local_variance.device)

    def state_dict(self) -> dict[str, Any]:
        """The key of the Gibbs steps, and scales by layer."""
        layers = {name: asdict(layer) for name, layer in self.layers.items()}
        return {"seed": self.seed, "chain": self.chain, "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, for the same layers."""
        load_layers(self.layers, self.state_dict()["layers"], state["layers"])
        self.seed, self.chain = state["seed"], state["chain"]


def inverse_gamma_above(u: Tensor, shape: float, rate: Tensor, floor: float) -> Tensor:
    """IG(shape, rate) restricted to values >= floor, from uniforms u in (0, 1).

    The reciprocal x is Gamma(shape, rate) restricted to (0, 1 / floor]: with P the regularised incomplete gamma
    function, P(shape, rate x) = u P(shape, rate / floor); at shape 1 x = -log(1 - u (1 - exp(-rate / floor))) / rate.
    """
    if shape == 1:
        scaled = -torch.log1p(u * torch.expm1(-rate / floor))
    else:
        from scipy.special import gammainc, gammaincinv  # here: priors work with torch and numpy alone

        at, below = (v.double().cpu().numpy() for v in (u, rate / floor))
        scaled = torch.from_numpy(gammaincinv(shape, at * gammainc(shape, below))).to(rate)
    # Far above the floor P underflows, and every value of the restricted law is at the floor.
    return (rate / scaled).nan_to_num(floor, posinf=floor).clamp_(min=floor)
