"""The marginal likelihood as a trainer (SpaM), its posterior's damage as a criterion (OPD), and MAP as the control.

The ensemble averages the softmax of the network linearised at its masked weights: draws put into the network itself
underfit, and would not be the method's own predictive.
"""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from sgmcmc_prune.baselines import laplace
from sgmcmc_prune.baselines.laplace.layers import find_layers
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import complete, masked, predict_with, timed
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask


def methods() -> Iterator[Method]:
    """All methods of the family."""
    for name, learn_prior, by_damage in (
        ("spam-opd", True, True),
        ("spam-magnitude", True, False),
        ("map-opd", False, True),
    ):
        scope, fit = "Linear and Conv2d layers, nothing else with parameters", partial(_fit, learn_prior, by_damage)
        yield Method(name, "laplace", "Dhahri et al. 2024", scope, _applies, fit, grid("laplace"), ONE_FOR_ALL)


def _applies(problem: Problem) -> str | None:
    try:
        find_layers(problem.network())
    except ValueError as error:
        return str(error)
    return in_memory(problem)


def _fit(learn_prior: bool, by_damage: bool, problem: Problem, folder: Path) -> Iterator[Candidate]:
    recipe = _recipe(problem, learn_prior)
    fitted, seconds = timed(partial(laplace.fit, problem.network(), problem.data.train, recipe, seed=problem.seed))
    cost, groups = Cost(fitted.gradient_evaluations, seconds), single_weights(fitted.model)
    scores = fitted.scores() if by_damage else magnitude(fitted.weights, groups)
    for target in problem.sparsities:
        yield _candidate(problem, fitted, target, target_sparsity(scores, groups, target), cost)
    if by_damage:
        yield _candidate(problem, fitted, None, fitted.mask(), cost)


def _recipe(problem: Problem, learn_prior: bool) -> laplace.Recipe:
    """As many updates of the prior, evenly spaced, as the budget holds beside their curvatures.

    With an update every E epochs, curvatures over a share s of the data and p passes in the budget, n (E + s) = p.
    The last update is the end of the training: without a learned prior there is one curvature, for the scores.
    """
    settings = {**SETTINGS["laplace"], **problem.settings}
    interval, share = settings.pop("every"), settings["curvature_share"]
    updates = max(1, round(problem.epochs / (interval + share))) if learn_prior else 1
    steps = problem.steps_beside(updates * math.ceil(share * problem.num_data))
    return laplace.Recipe(
        estimator="monte_carlo",
        every=steps // updates,
        burn_in=steps // updates if learn_prior else steps + 1,
        steps=steps,
        batch_size=problem.batch_size,
        draws=problem.members,
        **settings,
        lr_min=settings["lr"],
    )


def _candidate(problem: Problem, fitted: laplace.Fitted, target: float | None, mask: Mask, cost: Cost) -> Candidate:
    mask = complete(mask, fitted.model)
    pruned = copy.copy(fitted)
    pruned.model, pruned.hard_mask = masked(problem, fitted.model, fitted.model.state_dict(), mask), mask

    def ensemble(inputs: Tensor) -> Tensor:
        return pruned.predict(inputs, "ensemble")

    return Candidate(target, [mask], predict_with([pruned.model]), ensemble, fitted.members, cost)
