"""Ours, decided by what pruning costs: the expected rise of the loss over the draws of a chain.

The chain takes most of the budget; the rest are the gradients that give each draw its curvature.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Weights
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods.chains import chain_steps, dense_config, drawn, run_once
from sgmcmc_prune.compare.methods.settings import grid
from sgmcmc_prune.compare.networks import at_sparsities
from sgmcmc_prune.criteria.expected_loss import expected_loss
from sgmcmc_prune.data.batches import minibatches
from sgmcmc_prune.likelihoods import categorical, mean_nll
from sgmcmc_prune.pruning.masks import prunable
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import require
from sgmcmc_prune.store.places import RunPlaces


def methods() -> Iterator[Method]:
    """All methods of the family."""
    paper = "this library; LeCun, Denker and Solla 1990"
    applies, chosen = lambda problem: None, grid("expected_loss_chain")
    yield Method("expected-loss", "sgmcmc", paper, "every network", applies, _fit, chosen, ONE_FOR_ALL)


def _fit(problem: Problem, folder: Path) -> Iterator[Candidate]:
    config = dense_config(problem, "expected_loss_chain")
    seconds = run_once(problem, config, folder / "run")
    steps = chain_steps(problem, config)
    cycles, draws = config.schedule.cycles, config.schedule.draws
    chain = drawn(problem, RunPlaces(folder / "run"), 0, cycles, draws, steps, seconds)
    left, count = problem.steps - steps, len(chain.draws)
    batches = [(left + index) // count for index in range(count)]
    require(batches[0] > 1, f"{problem.steps} steps leave {left} minibatches for {count} curvatures; each needs 2")
    started, network = time.perf_counter(), problem.network()
    curvatures = [curvature(problem, network, w, b) for w, b in zip(chain.draws, batches, strict=True)]
    cost = Cost(problem.steps * problem.batch_size, seconds + time.perf_counter() - started)
    groups = Run(config, data=problem.data).groups(chain.model)
    scores = expected_loss(chain.draws, curvatures, groups)
    yield from at_sparsities(problem, replace(chain, cost=cost, scores=scores, groups=groups))


def curvature(problem: Problem, model: nn.Module, weights: Weights, batches: int) -> Mapping[str, Tensor]:
    r"""The diagonal of the empirical Fisher matrix of the loss N * mean NLL, from minibatch gradients.

    A gradient g of the mean over B examples has variance F / B, with F that of one example: h = N B Var(g). It is moved
    to the CPU, where the draws are.
    """
    model.load_state_dict(weights, strict=False)
    model.train()
    stream = minibatches(problem.data.train, problem.batch_size, problem.seed, 0)
    parameters = prunable(model)
    gradients: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for step in range(batches):
        inputs, labels = stream.batch(step)
        model.zero_grad()
        mean_nll(categorical, model(inputs), labels).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            gradients[name].append(parameter.grad.double())
    scale = problem.num_data * problem.batch_size
    return {name: (scale * torch.stack(found).var(0)).cpu() for name, found in gradients.items()}
