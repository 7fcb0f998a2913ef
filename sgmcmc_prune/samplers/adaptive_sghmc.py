r"""SGHMC with a learned diagonal: the adaptive variational Bayes of Ke and Fan, corrected and as released.

q(w_j) = N(mu_j, sigma_j^2) with sigma_j = s tau_j and 0 < tau_j < 1 is fitted by the reparameterisation gradient xi g,
in the dual variable rho = logit(tau), and tau preconditions the sampler: M = 1 / tau.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.preconditioners import Identity, change_mass, sqrt_mass
from sgmcmc_prune.samplers.sghmc import SGHMC
from sgmcmc_prune.settings import check_positive

Form = Literal["corrected", "released"]
#: Steps of the dual variable, unless given.
ETA: dict[str, float] = {"corrected": 1e-3, "released": 0.1}
#: Weight of the newest step in the running mean square of the curvature estimate.
FORGETTING = 0.01


class AdaptiveSGHMC(SGHMC):
    r"""SGHMC with M = 1 / tau, tau in (0, 1) learned for every weight.

    **Corrected.** The noise xi of the last step displaced a weight by epsilon xi, epsilon^2 = 2 (1 - beta) l T tau / N,
    and so xi g / epsilon, g being the force, is an unbiased estimate of the curvature a of U / N. With sigma = tau
    sqrt(T / (N c)), the derivative of the negative ELBO (in units of T) with respect to log tau gives

        rho <- rho - eta (tau^2 / c  xi g / epsilon - 1),        tau = sigmoid(rho),

    which rests at tau = sqrt(c / a): sigma is the posterior standard deviation. The momentum keeps its law when M
    changes. The sampler is `SGHMC` with that M; tau is frozen while draws are collected, so they have the law of SGHMC
    with a fixed mass. Weights with curvatures far below c all end near tau = 1.

    **What temperature does to it.** The estimate z = tau^2 / c  xi g / epsilon has the mean square s^2 = (tau^2 / c)^2
    V N / (2 (1 - beta) l T tau) under a gradient of variance V: it grows with 1 / T, where its mean does not. With a
    constant eta the dual variable is then a random walk of steps eta s, and once it is below -88 the mass 1 / tau
    exceeds float32 and the chain is NaN. An MLP 784-100-10 at l = 0.05 and T = 1e-5 got there within 30 steps. So eta
    is an upper bound here: a tensor takes min(eta, 1 / s^2), s^2 being a running mean over its earlier steps and its
    weights, which leaves tau = sqrt(c / a) where it was and the standard deviation of rho about it near
    1 / (2 sqrt(1 - tau)) or less. Learning then takes some s^2 steps, which no run has at T = 1e-5: tau stays near
    1/2, and the sampler is SGHMC at half the step.

    **Released.** The steps of the authors' code, for C^2 = l, noise multiplier T' = sqrt(T / N) and per-example weight
    decay lambda = 1 / (N v) under a prior of variance v:

        rho <- rho - eta (T'^2 C^3 lambda tau + T' C^1.5 xi g - 1 / (N tau)),        g without the prior's share
        tau <- sigmoid(rho)
        m   <- beta m - l (g + lambda w) + sqrt(2 + 2 beta^2) C^1.5 T' xi_new
        w   <- w + tau m.

    Its noise is not scaled by M^(1/2): for small steps weight j is at temperature C tau_j (1 + beta^2) / (1 - beta) T,
    each at its own, and not at T. m is kept when l changes. lambda tau is the prior's gradient at tau, so the prior
    must be Gaussian given its state: `Gaussian`, `SpikeSlab` in mode "em" or "gibbs". With T' = 1 / N (T = 1 / N) the
    last term of rho rules, and whatever the data are tau = 1 - exp(-eta t / N) / 2 after t steps.

    Parameters
    ----------
    form : {"corrected", "released"}
    eta : float, optional
        Step of rho: by default 1e-3 (corrected, where the noise of the estimate shortens it) or 0.1 (released).
    curvature : float
        c > 0: weights with this curvature of U / N, or less, have tau near 1. For the corrected form.
    momentum : float
        beta in [0, 1).
    **settings
        As for :class:`~sgmcmc_prune.samplers.base.Sampler`, without a preconditioner.

    References
    ----------
    Ke, Fan: On the optimization and pruning for Bayesian deep learning (arXiv 2210.12957) and its released code.
    """

    name = "adaptive_sghmc"
    own = ("momentum", "form", "eta", "curvature")
    state_keys = (*SGHMC.state_keys, "rho", "noise", "probe", "estimate_square")

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        num_data: int,
        momentum: float = 0.9,
        form: Form = "corrected",
        eta: float | None = None,
        curvature: float = 1.0,
        **settings: Any,
    ) -> None:
        _check_form(form)
        eta = ETA[form] if eta is None else eta
        if not isinstance(settings.get("preconditioner") or Identity(), Identity):
            raise ValueError("adaptive_sghmc learns its own mass matrix; the preconditioner must be the identity")
        own = {"form": form, "eta": eta, "curvature": curvature}
        super().__init__(params, lr=lr, num_data=num_data, momentum=momentum, **own, **settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, with rho = 0 and tau = 1/2; the released form starts with random m and xi."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        released = group["form"] == "released"
        momenta = self._noise(group, Stream.MOMENTUM) if released else []
        noises = self._noise({**group, "offset": 2**40 + group["offset"]}, Stream.MOMENTUM) if released else []
        for i, p in enumerate(group["params"]):
            self.state[p]["rho"] = torch.zeros_like(p, requires_grad=False)
            self.state[p]["mass"] = torch.full_like(p, 2.0, requires_grad=False)
            if released:
                self.state[p] |= {"momentum_buffer": 1e-3 * momenta[i], "noise": noises[i]}

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        super()._check_settings(group)
        _check_form(group["form"])
        for name in ("eta", "curvature"):
            check_positive(name, group[name])

    def _needed(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("rho", "mass", *(("momentum_buffer", "noise") if group["form"] == "released" else ()))

    def _step_parameter(self, name: str, p: Tensor, noise: Tensor | None, group: dict[str, Any]) -> None:
        if group["form"] == "corrected":
            super()._step_parameter(name, p, noise, group)
            return
        state, num_data, prior = self.state[p], group["num_data"], self.prior
        assert p.grad is not None
        released(
            p,
            p.grad,
            noise,
            state["momentum_buffer"],
            state["rho"],
            state["noise"],
            (lambda w: 0 * w)
            if prior is None
            else (lambda w: prior.potential_gradient(self.prior_names[name], w) / num_data),
            eta=group["eta"] if group["adapting"] else 0.0,
            **self._arguments({"mask": state.get("mask")}, group),
        )
        state["mass"], state["time_step"] = 1 / state["rho"].sigmoid(), self.time_step(group)
        if noise is not None:
            state["noise"] = noise

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        if group["adapting"] and "probe" in state:
            estimate = state["probe"] * force / (group["curvature"] * state["mass"].square())
            square = estimate.square().mean()
            earlier = state.setdefault("estimate_square", square)  # the step's length must not know the step's noise
            state["rho"].sub_((estimate - 1) * allowed(group["eta"], earlier))
            state["estimate_square"] = earlier.lerp(square, FORGETTING)
            mass = 1 / state["rho"].sigmoid()
            if mass.device.type == "cpu":  # a GPU would be waited for: `check` looks there
                _require_finite(mass, group)
            change_mass(state, mass)
        super()._update(p, force, noise, state, group)
        state.pop("probe", None)
        if group["adapting"] and noise is not None:
            epsilon = math.sqrt(2 * (1 - group["momentum"]) * group["lr"] * group["temperature"] / group["num_data"])
            state["probe"] = sqrt_mass(state["mass"], noise) / epsilon

    def check(self) -> None:
        """As every sampler's; and RunError if a mass has left the range of its type."""
        for _, _, state, group in self.named_states():
            if "mass" in state:
                _require_finite(state["mass"], group)
        super().check()

    @classmethod
    def time_step(cls, group: Mapping[str, Any]) -> float:
        """h, the time step in physical units; the released form's m is -l b, so that h is 1 / sqrt(N l) for it."""
        if group["form"] == "released":
            return 1 / math.sqrt(group["num_data"] * group["lr"])
        return super().time_step(group)

    def sample_momentum(self) -> None:
        """Draw the momentum afresh from its stationary law for small steps; ValueError in the released form."""
        if any(group["form"] == "released" for group in self.param_groups):
            raise ValueError("the released form has no common temperature to draw a momentum at")
        super().sample_momentum()


def _check_form(form: object) -> None:
    if form not in ETA:
        raise ValueError(f"form is {form!r}; choose one of {', '.join(ETA)}")


def allowed(eta: float, square: Tensor) -> Tensor:
    """The step of rho that an estimate of this mean square allows: min(eta, 1 / s^2)."""
    return square.reciprocal().clamp(max=eta)


def released(
    p: Tensor,
    gradient: Tensor,
    noise: Tensor | None,
    buffer: Tensor,
    rho: Tensor,
    last_noise: Tensor,
    decay: Callable[[Tensor], Tensor],
    *,
    lr: float,
    momentum: float,
    temperature: float,
    num_data: int,
    eta: float,
    mass: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """One step of the released form, in place: `buffer` is m, `decay(w)` is lambda w; `mass` is not used (tau is)."""
    c, multiplier = math.sqrt(lr), math.sqrt(temperature / num_data)
    tau = rho.sigmoid()
    slope = multiplier**2 * c**3 * decay(tau) + multiplier * c**1.5 * last_noise * gradient - 1 / (num_data * tau)
    tau = rho.sub_(slope, alpha=eta).sigmoid()
    buffer.mul_(momentum).add_(gradient + decay(p), alpha=-lr)
    if noise is not None:
        buffer.add_(noise, alpha=math.sqrt(2 + 2 * momentum**2) * c**1.5 * multiplier)
    if mask is not None:
        buffer.masked_fill_(~mask, 0.0)  # decay(0) may be infinite, and infinity times zero is no zero
    p.add_(tau * buffer)


def _require_finite(mass: Tensor, group: Mapping[str, Any]) -> None:
    if not bool(mass.isfinite().all()):
        raise RunError(
            f"adaptive_sghmc at temperature {group['temperature']:g}: the noise of its curvature estimate has taken "
            f"rho below the range of {mass.dtype}; lower eta (now {group['eta']:g}) or use sghmc"
        )
