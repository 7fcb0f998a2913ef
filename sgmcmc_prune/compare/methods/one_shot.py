"""One shot: every method starts from the same network, or the same chain, of a seed, and trains no more.

The training, or the chain, spends the whole budget. What a method looks at afterwards, the examples of its curvatures,
is counted on top and stands in the column `calibration_examples`. Each mask has its control (Frankle et al. 2021): the
same masks shuffled within their layers, with the same update of what is left; where that does as well, the method has
found how many weights each layer keeps, and no more.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines import magnitude as training
from sgmcmc_prune.baselines.fit import Cost, Fit, Weights
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Method, Problem
from sgmcmc_prune.compare.methods.chains import chain_steps, dense_config, drawn, run_once, shared_name
from sgmcmc_prune.compare.methods.point_estimates import in_memory, recipe
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import at_sparsity, under_mask
from sgmcmc_prune.criteria.lamp import lamp
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.data.batches import chosen
from sgmcmc_prune.likelihoods import categorical
from sgmcmc_prune.machine.progress import tell
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.pruning.conditional.members import Members
from sgmcmc_prune.pruning.conditional.prune import (
    Choose,
    Conditional,
    Pruned,
    by_evidence,
    follow,
    given,
    layers_of,
    path,
    precision_of,
)
from sgmcmc_prune.pruning.decision import match_layer_sparsity, target_sparsity
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.run.conditional import CURVATURE_CHAIN
from sgmcmc_prune.run.decide import chain_scores
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.files import locked, read_json, write_json
from sgmcmc_prune.store.given_weights import load_given_weights
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.weights import WeightStore, average

Scores = Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """What all methods of a seed start from: a network or draws, the prior's precision, and scores by criterion."""

    fit: Fit
    precision: Callable[[Weights], Weights]
    scores: Callable[[str], Scores]


def methods() -> Iterator[Method]:
    """All methods of the track."""
    han, lee, frantar = "Han et al. 2015", "Lee et al. 2021", "Frantar, Singh and Alistarh 2022"
    for source, begin in (("sgd", trained), ("draws", sampled)):
        yield _method(f"{source}-magnitude-one-shot", han, begin, partial(_by_scores, "magnitude"))
        yield _method(f"{source}-lamp-one-shot", lee, begin, partial(_by_scores, "lamp"))
        for staged in ("", "-staged"):
            stages = SETTINGS["conditional"]["stages"] if staged else 1
            for curvature in ("gram", "kfac", "ggn", "fisher"):
                paper = {"gram": frantar, "fisher": "Singh and Alistarh 2020"}.get(curvature, "this library")
                allocation = "erk" if curvature == "gram" else "global"
                how = Conditional(curvature, {}, stages, SETTINGS["conditional"]["examples"])
                joint = partial(_joint, how, allocation)
                yield _conditional(f"{source}-conditional-{curvature}{staged}", paper, begin, joint)
        how = Conditional("ggn", {}, 1, SETTINGS["conditional"]["examples"])
        yield _conditional(f"{source}-magnitude-moved", "control: magnitude's mask, moved", begin, partial(_moved, how))
    obc = replace(how, curvature="gram", options={"damp": 0.01})
    yield _conditional("obc", frantar, _flat, partial(_joint, obc, "erk"))
    for criterion, paper in (("signal_to_noise", "Graves 2011"), ("expected_log_odds", "this library")):
        yield _method(f"draws-{criterion.replace('_', '-')}-one-shot", paper, sampled, partial(_by_scores, criterion))


def _method(
    name: str,
    paper: str,
    begin: Callable[[Problem], Start],
    candidates: Callable[[Problem, Start], Iterator[Candidate]],
    applies: Callable[[Problem], str | None] = in_memory,
    scope: str = "every network; images in memory",
    untrained: tuple[str, ...] = (),
) -> Method:
    chosen = grid("sgd" if begin is not sampled else "dense_chain")

    def fit(problem: Problem, folder: Path) -> Iterator[Candidate]:
        yield from candidates(problem, begin(problem))

    def reason(problem: Problem) -> str | None:
        if begin is sampled and problem.start is not None:
            return "it starts from the draws of a chain, and a network was given"
        return applies(problem)

    return Method(name, "one shot", paper, scope, reason, fit, chosen, ONE_FOR_ALL, untrained)


def _conditional(
    name: str, paper: str, begin: Callable[[Problem], Start], fit: Callable[[Problem, Start], Iterator[Candidate]]
) -> Method:
    scope = "networks whose prunable weights are Linear or Conv2d layers'"
    prior = ("weight_decay",) if begin is trained else ()  # N times as much is the prior's precision
    return _method(name, paper, begin, fit, _applies, scope, prior)


def _applies(problem: Problem) -> str | None:
    try:
        layers_of(problem.network())
    except ValueError as error:
        return str(error)
    return in_memory(problem)


def trained(problem: Problem) -> Start:
    """One network by SGD, or one that was given; the prior's precision is N times the weight decay."""
    model = problem.network()
    if problem.start is None:
        cost = _train(problem, model)
    else:
        cost = Cost(0, 0.0)
        load_given_weights(model, problem.start)
    groups = single_weights(model)
    weights = dict(model.named_parameters())
    scores = {"magnitude": magnitude(weights, groups), "lamp": lamp(weights, groups)}
    fit = Fit(model, cost, scores=scores["magnitude"], groups=groups)
    return Start(fit, decay(problem), scores.__getitem__)


def decay(problem: Problem) -> Callable[[Weights], Weights]:
    """The prior's precision that the weight decay of a recipe stands for: N times as much."""
    precision = problem.num_data * recipe(problem).weight_decay
    return lambda weights: {name: torch.full_like(w, precision) for name, w in weights.items()}


def _train(problem: Problem, model: nn.Module) -> Cost:
    """Train the network of a seed, once for all methods."""
    out = problem.shared / shared_name("one-shot-sgd", problem.settings)
    store = WeightStore(out)
    with locked(out.with_name(f"{out.name}.lock"), wait_seconds=math.inf):
        if not (out / "finished.json").is_file():
            tell(f"trains the network that all methods of the seed start from, {problem.epochs:g} epochs")
            fit = training.fit(model, problem.data.train, recipe(problem), seed=problem.seed)
            store.save(0, 0, network_state(fit.model))
            write_json(out / "finished.json", {"seconds": fit.cost.seconds})
    load_network_state(model, store.load(0, 0))
    return Cost(problem.steps * problem.batch_size, float(read_json(out / "finished.json")["seconds"]))


def _flat(problem: Problem) -> Start:
    """The same network without a prior."""
    return replace(trained(problem), precision=lambda w: {n: torch.zeros_like(v) for n, v in w.items()})


def sampled(problem: Problem) -> Start:
    """The draws of one dense chain, under its own prior."""
    config = dense_config(problem, "dense_chain")
    out = problem.shared / shared_name("chain-marginal", problem.settings)
    tell(f"samples the chain that all methods of the seed start from, {problem.epochs:g} epochs")
    seconds = run_once(problem, config, out)
    state, run = checkpoint.load(RunPlaces(out).checkpoint(0)), Run(config, data=problem.data)
    cycles, draws = config.schedule.cycles, config.schedule.draws
    fit = drawn(problem, RunPlaces(out), 0, cycles, draws, chain_steps(problem, config), seconds)
    prior, groups = run.prior(fit.model, 0), run.groups(fit.model)
    prior.load_state_dict(state["prior"])
    own = {name for name, p in fit.model.named_parameters() if p.requires_grad}
    return Start(
        replace(fit, groups=groups),
        lambda w: precision_of(prior, {n: v for n, v in w.items() if n in own}),
        lambda criterion: chain_scores(criterion, state, groups, problem.seed),
    )


def _by_scores(criterion: str, problem: Problem, start: Start) -> Iterator[Candidate]:
    fit = replace(start.fit, scores=start.scores(criterion))
    for target in problem.sparsities:
        mask, ties = at_sparsity(fit, target)
        shuffled = under_mask(problem, fit, target, _shuffled(problem, fit, mask))
        yield replace(under_mask(problem, fit, target, mask, ties), shuffled=shuffled)


def _joint(how: Conditional, allocation: str, problem: Problem, start: Start) -> Iterator[Candidate]:
    """To each target at once, or one way through all."""
    way = list(problem.sparsities) if how.stages == 1 else path(problem.sparsities, how.stages)
    yield from _taken(how, problem, start, way, [by_evidence(s, allocation) for s in way])


def _moved(how: Conditional, problem: Problem, start: Start) -> Iterator[Candidate]:
    scores, way = start.scores("magnitude"), list(problem.sparsities)
    masks = [target_sparsity(scores, start.fit.groups, target) for target in way]
    yield from _taken(how, problem, start, way, [given(mask) for mask in masks])


def _taken(
    how: Conditional, problem: Problem, start: Start, way: list[float], choose: list[Choose]
) -> Iterator[Candidate]:
    """A candidate where the way meets a target; its control goes the same way with every mask shuffled."""
    found, masks = [], []
    began = time.perf_counter()
    for sparsity, pruned in _told(way, "", _follow(how, problem, start, choose)):
        masks.append(pruned.mask)
        if sparsity in problem.sparsities:
            found.append((sparsity, pruned, time.perf_counter() - began))
    controls = _follow(how, problem, start, [given(_shuffled(problem, start.fit, mask)) for mask in masks])
    shuffled = {s: pruned for s, pruned in _told(way, "shuffled, ", controls) if s in problem.sparsities}
    for sparsity, pruned, seconds in found:
        control = _candidate(problem, start, sparsity, shuffled[sparsity], 0.0)
        yield replace(_candidate(problem, start, sparsity, pruned, seconds), shuffled=control)


def _told(way: Sequence[float], what: str, found: Iterator[Pruned]) -> Iterator[tuple[float, Pruned]]:
    """The sparsities of a way and what is found at each, every one announced before."""
    for stage, sparsity in enumerate(way):
        tell(f"{what}stage {stage + 1} of {len(way)}, to {sparsity:.1%}")
        yield sparsity, next(found)


def _follow(how: Conditional, problem: Problem, start: Start, choose: list[Choose]) -> Iterator[Pruned]:
    own = network_state(start.fit.model)
    draws = [{**own, **draw} for draw in start.fit.draws] or [own]
    return followed(how, problem, draws, start.precision, choose)


def followed(
    how: Conditional,
    problem: Problem,
    draws: Sequence[Weights],
    precision: Callable[[Weights], Weights],
    choose: Sequence[Choose],
    members: Mapping[str, Members] | None = None,
) -> Iterator[Pruned]:
    """Networks of a problem through the masks of some stages, with curvatures of its training examples."""
    train = problem.data.train

    def examples(stage: int, count: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(problem.seed * 2**16 + stage)
        index = torch.randperm(problem.num_data, generator=generator)[:count].to(train[0].device)
        return chosen(train, index, problem.seed, CURVATURE_CHAIN, stage)

    return follow(
        *(problem.network(), draws, examples, precision, choose, how),
        members=members,
        likelihood=categorical,
        num_data=problem.num_data,
        statistics=problem.statistics,
        seed=problem.seed,
    )


def _candidate(problem: Problem, start: Start, target: float, pruned: Pruned, seconds: float) -> Candidate:
    model = problem.network()
    load_network_state(model, average(pruned.draws))
    draws = pruned.draws if start.fit.draws else ()
    cost = start.fit.cost + Cost(pruned.examples, seconds)
    made = under_mask(problem, replace(start.fit, model=model, draws=draws, cost=cost), target, pruned.mask)
    return replace(made, calibration_examples=pruned.examples)


def _shuffled(problem: Problem, fit: Fit, mask: Mask) -> Mask:
    """As many weights of each layer, at random; masks that hold each other still do."""
    return match_layer_sparsity(random(fit.groups, problem.seed), fit.groups, mask)
