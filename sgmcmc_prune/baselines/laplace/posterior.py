"""The Laplace approximation around a trained network, and the predictions that go with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.laplace.curvature import Curvature
from sgmcmc_prune.baselines.laplace.evidence import log_evidence, well_determined
from sgmcmc_prune.baselines.laplace.opd import optimal_posterior_damage
from sgmcmc_prune.baselines.laplace.prior import PrecisionPrior
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.priors.groups import GroupMap

#: Examples that are linearised at once.
_BATCH = 1000


@dataclass(frozen=True)
class LaplacePosterior:
    """A Gaussian around the weights that have a prior.

    Attributes
    ----------
    weights : dict of str to Tensor
        Its mean, by parameter name.
    prior : PrecisionPrior
    curvature : Curvature
        At these weights.
    temperature : float
    """

    weights: dict[str, Tensor]
    prior: PrecisionPrior
    curvature: Curvature
    temperature: float

    def precision(self) -> dict[str, Tensor]:
        """diag(Pi) of every weight, float64."""
        prior, blocks = self.prior.precision(), self.curvature.blocks
        return {n: blocks[n].posterior_precision(prior[n], self.temperature) for n in blocks}

    def log_evidence(self) -> float:
        """The Laplace log marginal likelihood, in nats over all the data."""
        return float(log_evidence(self.curvature, self.weights, self.prior.log_precision(), self.temperature).detach())

    def well_determined(self) -> dict[str, Tensor]:
        """How far the data determine each weight, in [0, 1]; the sum is the effective number of parameters."""
        return well_determined(self.curvature.blocks, self.prior.log_precision(), self.temperature)

    def damage(self, groups: Mapping[str, GroupMap]) -> dict[str, Tensor]:
        """Optimal posterior damage of each group, shape (G,)."""
        return optimal_posterior_damage(self.weights, self.precision(), groups)

    def draws(self, count: int, seed: int, mask: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Draws of the weights, by name; masked weights stay zero."""
        generator = torch.Generator().manual_seed(seed + 2**32)
        precision = self.prior.precision()
        for _ in range(count):
            draw = dict(self.weights)
            for name, block in self.curvature.blocks.items():
                noise = torch.randn(draw[name].shape, generator=generator, dtype=torch.float64).to(draw[name].device)
                deviation = block.whiten(noise, precision[name], self.temperature)
                draw[name] = draw[name] + (deviation * mask.get(name, 1)).to(draw[name])
            yield draw


@dataclass(frozen=True, kw_only=True)
class LaplaceFit(Fit):
    """A trained network; its `history` has, per curvature, `step`, `log_evidence`, `effective_parameters`, `sparsity`.

    Attributes
    ----------
    posterior : LaplacePosterior
    """

    posterior: LaplacePosterior

    def predict(self, inputs: Tensor) -> Tensor:
        r"""Class probabilities, shape (n, classes), float64.

        The softmax of the network linearised in its weights, :math:`f(x) + J(x)(\theta_s - \theta)`, is averaged over
        the draws: the Gauss-Newton curvature is that of this linear model, and draws put into the network itself
        underfit.

        References
        ----------
        Immer, Korzepa, Bauer: Improving predictions of Bayesian neural nets via local linearization (AISTATS 2021).
        """
        with evaluation_mode(self.model), torch.enable_grad():
            return torch.cat([self._linearised(batch) for batch in inputs.split(_BATCH)])

    def _linearised(self, inputs: Tensor) -> Tensor:
        moved = self.posterior.weights.keys()
        mean = {n: p.detach().requires_grad_() for n, p in self.model.named_parameters() if n in moved}
        logits: Tensor = functional_call(self.model, mean, (inputs,))
        # u -> J'u is linear, so its own transpose is v -> J v: one forward pass serves all draws.
        u = torch.zeros_like(logits, requires_grad=True)
        transposed = torch.autograd.grad(logits, list(mean.values()), u, create_graph=True)
        total = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for draw in self.draws:
            change = [draw[name] - w.detach() for name, w in mean.items()]
            (product,) = torch.autograd.grad(transposed, u, change, retain_graph=True)
            total = total + (logits.detach() + product).double().softmax(1)
        return total / len(self.draws)
