"""What a fit gives: scores, its own mask, predictions, and its cost."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.laplace.curvature import Curvature
from sgmcmc_prune.baselines.laplace.evidence import log_evidence, well_determined
from sgmcmc_prune.baselines.laplace.opd import optimal_posterior_damage
from sgmcmc_prune.baselines.laplace.prior import PrecisionPrior
from sgmcmc_prune.baselines.laplace.recipe import Recipe
from sgmcmc_prune.predictive.predict import class_probabilities, evaluation_mode
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity

How = Literal["ensemble", "single"]


class Fitted:
    """A trained network and the Laplace approximation around it.

    Attributes
    ----------
    method : str
        "spam", or "map" where the prior was never updated.
    model : Module
        The trained network.
    prior : PrecisionPrior
    curvature : Curvature
        At the final weights.
    recipe : Recipe
    num_data : int
        N.
    gradient_evaluations : int
        Backward passes of one example, those of the curvature included.
    history : list of dict
        Per update of the prior: `step`, `log_evidence` after it, `effective_parameters`, `sparsity`.
    hard_mask : dict of str to bool Tensor, optional
        The mask that training held the weights to.
    """

    def __init__(
        self, model: nn.Module, prior: PrecisionPrior, curvature: Curvature, recipe: Recipe, num_data: int, seed: int
    ) -> None:
        self.method = "map" if recipe.burn_in > recipe.steps else "spam"
        self.model, self.prior, self.curvature, self.recipe, self.seed = model, prior, curvature, recipe, seed
        self.num_data = num_data
        self.gradient_evaluations = 0
        self.history: list[dict[str, Any]] = []
        self.hard_mask: masks.Mask | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that have a prior, by parameter name."""
        return {name: p.detach() for name, p in self.model.named_parameters() if name in self.curvature.blocks}

    def posterior_precision(self) -> dict[str, Tensor]:
        """diag(Pi) of every weight that has a prior, float64."""
        precision, blocks = self.prior.precision(), self.curvature.blocks
        return {n: blocks[n].posterior_precision(precision[n], self.recipe.temperature) for n in blocks}

    def log_evidence(self) -> float:
        """The Laplace log marginal likelihood at the end of training, in nats over all the data."""
        value = log_evidence(self.curvature, self.weights, self.prior.log_precision(), self.recipe.temperature)
        return float(value.detach())

    def scores(self, groups: Mapping[str, GroupMap] | None = None) -> dict[str, Tensor]:
        """Optimal posterior damage of each group of each prunable parameter (single weights by default), shape (G,)."""
        return optimal_posterior_damage(self.weights, self.posterior_precision(), groups or self._each_weight())

    def well_determined(self) -> dict[str, Tensor]:
        """How far the data determine each weight, in [0, 1]; the sum is the effective number of parameters."""
        return well_determined(self.curvature.blocks, self.prior.log_precision(), self.recipe.temperature)

    def mask(self) -> masks.Mask:
        r"""The method's own mask of the prunable parameters (True = kept).

        After online pruning it is the mask of its final sparsity. Otherwise weights are masked in the order of their
        damage as long as the predicted rise of the negative log joint stays within the recipe's budget,
        :math:`\frac{T}{2N} \sum_k \mathrm{OPD}_k \le \varepsilon` nats per example. This rule is ours; the paper sets
        the sparsity by hand.
        """
        if self.hard_mask is not None:
            return {name: kept.clone() for name, kept in self.hard_mask.items()}
        scores, groups = self.scores(), self._each_weight()
        if self.recipe.online is not None:
            return target_sparsity(scores, groups, self.recipe.online.final)
        damage = torch.cat(list(scores.values())).sort().values.cumsum(0) * self.recipe.temperature / 2
        masked = int((damage <= self.recipe.damage * self.num_data).sum())
        return target_sparsity(scores, groups, min(masked, len(damage) - 1) / len(damage))

    def draws(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Posterior draws of all parameters, by name, the same ones at every call; masked weights stay zero."""
        generator = torch.Generator().manual_seed(self.seed + 2**32)
        precision, mask = self.prior.precision(), self.hard_mask or {}
        for _ in range(count):
            draw = {name: p.detach() for name, p in self.model.named_parameters()}
            for name, block in self.curvature.blocks.items():
                noise = torch.randn(draw[name].shape, generator=generator, dtype=torch.float64).to(draw[name].device)
                deviation = block.whiten(noise, precision[name], self.recipe.temperature)
                draw[name] = draw[name] + (deviation * mask.get(name, 1)).to(draw[name])
            yield draw

    def predict(self, inputs: Tensor, how: How = "ensemble", batch_size: int = 1000) -> Tensor:
        r"""Class probabilities, shape (n, classes), float64.

        Parameters
        ----------
        inputs : Tensor, shape (n, ...)
        how : {"ensemble", "single"}
            `single` is the trained network. `ensemble` averages the softmax of the network linearised in its weights,
            :math:`f(x) + J(x)(\theta_s - \theta)`, over `recipe.draws` posterior draws: the Gauss-Newton curvature is
            that of this linear model, and draws put into the network itself underfit.
        batch_size : int

        Raises
        ------
        ValueError
            If `how` is neither.

        References
        ----------
        Immer, Korzepa, Bauer: Improving predictions of Bayesian neural nets via local linearization (AISTATS 2021).
        """
        if how not in ("ensemble", "single"):
            raise ValueError(f"how is {how!r}; choose 'ensemble' or 'single'")
        if how == "single":
            return class_probabilities(self.model, inputs, batch_size)
        with evaluation_mode(self.model), torch.enable_grad():
            draws = list(self.draws(self.members))
            return torch.cat([self._linearised(batch, draws) for batch in inputs.split(batch_size)])

    def _linearised(self, inputs: Tensor, draws: list[dict[str, Tensor]]) -> Tensor:
        mean = {name: w.requires_grad_() for name, w in self.weights.items()}
        logits: Tensor = functional_call(self.model, mean, (inputs,))
        # u -> J'u is linear, so its own transpose is v -> J v: one forward pass serves all draws.
        u = torch.zeros_like(logits, requires_grad=True)
        transposed = torch.autograd.grad(logits, list(mean.values()), u, create_graph=True)
        total = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for draw in draws:
            change = [draw[name] - w.detach() for name, w in mean.items()]
            (product,) = torch.autograd.grad(transposed, u, change, retain_graph=True)
            total = total + (logits.detach() + product).double().softmax(1)
        return total / len(draws)

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        return self.recipe.draws

    def _each_weight(self) -> dict[str, GroupMap]:
        return {name: GroupMap("weight", tuple(w.shape)) for name, w in self.weights.items() if w.ndim >= 2}
