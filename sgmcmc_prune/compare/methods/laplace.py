"""The marginal likelihood as a trainer (SpaM), its posterior's damage as a criterion (OPD), and MAP as the control.

The ensemble averages the softmax of the network linearised at its masked weights: draws put into the network itself
underfit, and would not be the method's own predictive.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmcmc_prune.baselines import laplace
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import at_sparsities, under_mask
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.models.layers import find_layers


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
    fit = laplace.fit(problem.network(), problem.data.train, _recipe(problem, learn_prior), seed=problem.seed)
    if by_damage:
        yield from at_sparsities(problem, fit)
        yield under_mask(problem, fit, None)
    else:
        yield from at_sparsities(problem, replace(fit, scores=magnitude(fit.posterior.weights, fit.groups)))


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
