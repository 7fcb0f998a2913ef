"""What must not fail silently in variational training: each check raises RunError in one line."""

import warnings
from typing import Literal

import torch

from sgmcmc_prune.baselines.variational.factors import GatedNormal
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.network import VariationalNetwork
from sgmcmc_prune.baselines.variational.scales import Horseshoe
from sgmcmc_prune.errors import RunError

#: s~/c above which a node's scale is saturated, and the fraction of saturated nodes that stops a run.
SATURATED, SATURATED_FRACTION = 0.99, 0.95
#: Steps after which every gate and scale must have moved.
MOVED_AFTER = 10

OnEmpty = Literal["stop", "warn"]


class Watchdog:
    """Watches one training run.

    Parameters
    ----------
    network : VariationalNetwork
        As it starts.
    on_empty : {"stop", "warn"}
        What to do when all gates of a layer have closed.
    """

    def __init__(self, network: VariationalNetwork, on_empty: OnEmpty) -> None:
        if on_empty not in ("stop", "warn"):
            raise ValueError(f"on_empty is {on_empty!r}; choose stop or warn")
        self.network, self.on_empty = network, on_empty
        self.warned: set[str] = set()
        self.opened = {name for name, odds in network.log_odds()[0].items() if bool((odds >= 0).any())}
        self.start = {name: p.detach().clone() for name, p in self._selecting()}

    def check_divergence(self) -> None:
        """The divergence depends on every gate and scale: a term that was left out gives no gradient."""
        if not (found := self._selecting()):
            return
        divergence, (names, parameters) = self.network.kl(), zip(*found, strict=True)
        gradients: tuple[torch.Tensor | None, ...] = (None,) * len(parameters)
        if divergence.requires_grad:
            gradients = torch.autograd.grad(divergence, parameters, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            # A mean or a logit may start where its gradient is zero; a width cannot, by the entropy of its factor.
            absent = gradient is None or (name.endswith("log_std") and bool((gradient == 0).any()))
            if absent:
                raise RunError(f"the divergence does not depend on all of {name}: a KL term is missing")

    def check_moved(self, step: int) -> None:
        """Gates and scales have moved: a tensor that has not is missing from the bound."""
        for name, parameter in self._selecting():
            if torch.equal(parameter.detach(), self.start[name]):
                raise RunError(f"{name} has not moved in {step} steps: its KL term or its gradient is missing")

    def check_state(self, last: bool = False) -> None:
        """Scales are not saturated; no layer that was open before is empty, nor any at the end (which only warns)."""
        scales = self.network.shared
        for name, ratio in scales.saturation().items() if isinstance(scales, Horseshoe) else ():
            saturated = float((ratio > SATURATED).float().mean())
            if saturated > SATURATED_FRACTION:
                raise RunError(
                    f"the horseshoe scales of {name} are saturated ({saturated:.0%} above {SATURATED} c): they "
                    "shrink nothing. Learn the regulariser, raise it, or lower prior_std"
                )
        for name, odds in self.network.log_odds()[0].items():
            if bool((odds >= 0).any()):
                self.opened.add(name)
            elif (last or name in self.opened) and name not in self.warned:
                self._empty(name, stop=self.on_empty == "stop" and not last)

    def _empty(self, name: str, stop: bool) -> None:
        message = f"nothing of {name} is kept: all its inclusion probabilities are below 1/2"
        if stop:
            raise RunError(f"{message}. Raise inclusion, start from trained weights, or go on with on_empty='warn'")
        self.warned.add(name)
        warnings.warn(message, stacklevel=2)

    def _selecting(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters of gates and scales."""
        modules = [(n, m) for n, m in self.network.named_modules() if isinstance(m, Gate | GatedNormal)]
        found = [(f"{name}.logits", module.logits) for name, module in modules]
        if self.network.shared is not None:
            found += [(f"shared.{name}", p) for name, p in self.network.shared.named_parameters()]
        return found
