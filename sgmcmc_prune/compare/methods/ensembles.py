"""Ensembles: one network of density d against M networks of density d / M, at equal weights and an equal budget.

A target sparsity 1 - d is that of all networks of a predictor together, counted in the weights of one dense network: M
members (`members` of the comparison) are pruned to 1 - d / M each. Biases, which are not pruned, come on top, M times.
All members together spend the budget that the one network has alone. Ours has the draws of one chain under one mask, or
the means of M chains, each from its own start and under its own mask; beside them stand M trainings from starts of
their own: pruned gradually, or sparse from the first step, which is FreeTickets' idea.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmcmc_prune.compare.method import Candidate, Method, Problem
from sgmcmc_prune.compare.methods import chains, point_estimates
from sgmcmc_prune.compare.methods.point_estimates import Member, in_memory
from sgmcmc_prune.compare.methods.settings import grid
from sgmcmc_prune.compare.networks import together

#: Of the trained track, what is one network.
_ALONE = ("gradual-magnitude", "rigl")
_CRITERION = "inclusion_probability"


def methods() -> Iterator[Method]:
    """All methods of the track."""
    yield from (method for method in point_estimates.methods() if method.name in _ALONE)
    scope = "every network"
    for name, chain in (("inclusion-mean", _mean), ("inclusion-draws", _draws), ("inclusion-chains", _chains)):
        yield Method(name, "sgmcmc", "this library", scope, lambda problem: None, chain, grid("in_chain"))
    lakshminarayanan, liu = (
        "Lakshminarayanan et al. 2017, of gradual-magnitude",
        "Liu et al. 2022 (FreeTickets), of rigl",
    )
    for name, paper, train in (
        ("gradual-ensemble", lakshminarayanan, point_estimates.gradual_member),
        ("rigl-ensemble", liu, point_estimates.rigl_member),
    ):
        fit = partial(_independent, train=train)
        yield Method(name, "point estimate", paper, f"{scope}; images in memory", in_memory, fit, grid("sgd"))


def of_member(problem: Problem, target: float) -> float:
    """The sparsity of each of M members: 1 - d / M."""
    return 1 - (1 - target) / problem.members


def _mean(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """One network: the mean of a chain's draws."""
    for found in chains.in_chain(problem, folder, _CRITERION):
        yield replace(found, predict=found.single, members=1)


def _draws(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """The draws of a chain, which share its mask."""
    members = tuple(of_member(problem, target) for target in problem.sparsities)
    found = chains.in_chain(replace(problem, sparsities=members), folder, _CRITERION)
    for target, candidate in zip(problem.sparsities, found, strict=True):
        yield replace(candidate, target=target)


def _chains(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """The means of chains that share the budget."""
    of_length: dict[int, list[int]] = {}
    for member in range(problem.members):
        of_length.setdefault((problem.steps + member) // problem.members, []).append(member)
    for target in problem.sparsities:
        sparsity, found = of_member(problem, target), list[Candidate]()
        for steps, members in of_length.items():
            short = replace(problem, epochs=steps * problem.batch_size / problem.num_data)
            place = folder / f"{target:g}-{steps}"
            found += chains.grown(short, place, sparsity, _CRITERION, chains=members)
        yield together(target, found)


def _independent(problem: Problem, folder: Path, train: Member) -> Iterator[Candidate]:
    """Networks from starts of their own, each under its own mask."""
    for target in problem.sparsities:
        sparsity = of_member(problem, target)
        yield point_estimates.independent(problem, target, problem.members, partial(train, problem, sparsity))
