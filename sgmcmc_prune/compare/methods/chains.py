"""Ours: pruning by what a Markov chain knows, post hoc and inside the chain, and the controls on the same chain.

A chain spends the whole budget. Post hoc, all targets and criteria share one dense chain; in the chain there is one
chain per target, as there is one training per target for every method that trains under its mask. The single network
is the mean of the draws of the last cycle, in which the chain has one mode (hidden units permute between cycles).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Cost, Method, Problem, Settings, Ties
from sgmcmc_prune.compare.methods.settings import LENGTHS, SETTINGS, grid
from sgmcmc_prune.compare.networks import at_layer_sparsities, at_sparsities, under_mask
from sgmcmc_prune.machine.progress import Silent
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import median_probability_model
from sgmcmc_prune.run.config import PruneConfig, RunConfig, ScheduleConfig
from sgmcmc_prune.run.decide import chain_scores, inclusion_probabilities
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import open_stage, take_chain
from sgmcmc_prune.settings import replace, to_json
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.files import locked, read_json, write_json
from sgmcmc_prune.store.places import RunPlaces, StagePlaces
from sgmcmc_prune.store.weights import WeightStore, average


def methods() -> Iterator[Method]:
    """All methods of the family."""
    family, scope = "sgmcmc", "every network"
    marginal, em = partial(_post_hoc, mode="marginal"), partial(_post_hoc, mode="em")
    post_hoc: dict[str, tuple[Callable[..., Iterator[Candidate]], str, str]] = {
        "inclusion-probability": (marginal, "inclusion_probability", "this library"),
        "expected-log-odds": (marginal, "expected_log_odds", "this library"),
        "em-responsibility": (em, "em_responsibility", "Ke and Fan; Deng et al. 2019"),
        "chain-magnitude": (marginal, "magnitude", "Han et al. 2015, on a chain"),
        "chain-signal-to-noise": (marginal, "signal_to_noise", "Graves 2011, on a chain"),
        "chain-random": (marginal, "random", "control: layer sparsities of inclusion-probability"),
    }
    for name, (fit, criterion, paper) in post_hoc.items():
        applies, chosen, criterion_fit = lambda problem: None, grid("dense_chain"), partial(fit, criterion=criterion)
        yield Method(name, family, paper, scope, applies, criterion_fit, chosen, ONE_FOR_ALL)
    on_the_way: dict[str, tuple[str, str]] = {
        "inclusion-in-chain": ("inclusion_probability", "this library"),
        "log-odds-in-chain": ("expected_log_odds", "this library"),
        "magnitude-in-chain": ("root_mean_square", "Zhu and Gupta 2017, in a chain"),
    }
    for name, (in_chain_criterion, paper) in on_the_way.items():
        fit = partial(in_chain, criterion=in_chain_criterion)
        yield Method(name, family, paper, scope, lambda problem: None, fit, grid("in_chain"))


def dense_config(problem: Problem, section: str, **changes: Any) -> RunConfig:
    """One chain without a mask; without `draws`, it keeps the members' share of each cycle."""
    share, epochs = LENGTHS[section], problem.epochs
    cycles = int(share["cycles"])
    schedule = ScheduleConfig(
        burn_in=share["burn_in"] * epochs,
        cycles=cycles,
        explore=share["explore"] * epochs,
        sample=share["sample"] * epochs,
        relax=share["relax"] * epochs,
        draws=int(share.get("draws", -(-problem.members // cycles))),
    )
    start = round(share.get("em_start", 0.0) * problem.steps)
    return _chain_config(
        problem, section, schedule, PruneConfig(post_hoc=(), in_chain=()), **{"em.start": start, **changes}
    )


def _in_chain_config(problem: Problem, target: float, criterion: str) -> RunConfig:
    """One chain whose mask grows to a target."""
    share, epochs = LENGTHS["in_chain"], problem.epochs
    prune = PruneConfig(
        targets=(target,),
        in_chain=(criterion,),
        post_hoc=(),
        explore=share["explore"] * epochs,
        sample=share["sample"] * epochs,
        relax=share["relax"] * epochs,
        draws=problem.members,
        growth=share["growth"],
    )
    schedule = ScheduleConfig(burn_in=share["burn_in"] * epochs, cycles=0)
    return _chain_config(problem, "in_chain", schedule, prune)


def _chain_config(
    problem: Problem, section: str, schedule: ScheduleConfig, prune: PruneConfig, **changes: Any
) -> RunConfig:
    chosen = {**SETTINGS["chain"], **SETTINGS[section], **problem.settings, **changes}
    chosen["sampler.lr_explore"] = chosen["sampler.lr"] * chosen.pop("lr_explore_share", 1.0)
    fixed = {"chains": 1, "keep_weight_draws": True, "checkpoint_seconds": 120.0}
    config: RunConfig = replace(problem.config, schedule=schedule, prune=prune, **fixed, **chosen)
    if config.prior.family == "spike_slab":
        floor = Run(config, data=problem.data).smallest_spike
        spike = max(config.prior.spike_variance, 1.01 * floor)  # small data: a step is wide against a narrow spike
        config = replace(config, **{"prior.spike_variance": spike})
    return _spend(problem, section, config)


def _spend(problem: Problem, section: str, config: RunConfig) -> RunConfig:
    """Lengthen the burn-in by the steps that rounding loses: each phase is whole steps, and thinning drops some."""
    share, per_epoch = LENGTHS[section], problem.num_data / problem.batch_size
    whole = share["burn_in"] + share.get("cycles", 1) * (share["explore"] + share["sample"])
    lost = round(whole * problem.steps) - chain_steps(problem, config)
    spent: RunConfig = replace(config, **{"schedule.burn_in": config.schedule.burn_in + lost / per_epoch})
    return spent


def chain_steps(problem: Problem, config: RunConfig) -> int:
    """Steps of a chain, and of its fork if it has one."""
    return Run(config, data=problem.data).num_steps


def _post_hoc(problem: Problem, folder: Path, mode: str, criterion: str) -> Iterator[Candidate]:
    config = dense_config(problem, "dense_chain", **{"prior.mode": mode})
    out = problem.shared / shared_name(f"chain-{mode}", problem.settings)
    seconds = run_once(problem, config, out)
    state = checkpoint.load(RunPlaces(out).checkpoint(0))
    steps = chain_steps(problem, config)
    chain = drawn(problem, RunPlaces(out), 0, config.schedule.cycles, config.schedule.draws, steps, seconds)
    groups = Run(config, data=problem.data).groups(chain.model)
    fit = dataclasses.replace(chain, scores=chain_scores(criterion, state, groups, problem.seed), groups=groups)
    if criterion == "random":
        reference = chain_scores("inclusion_probability", state, groups, problem.seed)
        yield from at_layer_sparsities(problem, fit, reference)
        return
    yield from at_sparsities(problem, fit)
    if criterion == "inclusion_probability":
        median = median_probability_model(inclusion_probabilities(state), groups)
        yield under_mask(problem, fit, None, median)
    if criterion == "em_responsibility":
        kept = {name: score.sigmoid() for name, score in fit.scores.items()}
        yield under_mask(problem, fit, None, median_probability_model(kept, groups))


def in_chain(problem: Problem, folder: Path, criterion: str, allocation: str = "global") -> Iterator[Candidate]:
    """A chain for each target, whose mask grows to it."""
    for target in problem.sparsities:
        yield from grown(problem, folder / f"{target:g}", target, criterion, allocation)


def grown(
    problem: Problem,
    out: Path,
    target: float,
    criterion: str,
    allocation: str = "global",
    chains: Sequence[int] = (0,),
) -> Iterator[Candidate]:
    """A candidate of each of some chains, whose masks grow to a target; each chain takes the problem's steps."""
    changes = {"prune.allocation": allocation, "chains": max(chains) + 1}
    config = replace(_in_chain_config(problem, target, criterion), **changes)
    seconds, steps = run_once(problem, config, out, chains) / len(chains), chain_steps(problem, config)
    stage = RunPlaces(out).stage(criterion)
    for index in chains:
        fit = drawn(problem, stage, 0, 1, problem.members, steps, seconds, index)
        path, groups = stage.mask(index, target), Run(config, data=problem.data).groups(fit.model)
        ties = Ties(masks.load_tied(path), sum(group.num_groups for group in groups.values()))
        yield under_mask(problem, fit, target, masks.load(path), ties)


def shared_name(chain: str, settings: Settings) -> str:
    """The folder of a chain that methods share if their settings agree."""
    return "-".join([chain, *(f"{name}={value:g}" for name, value in settings.items())])


def run_once(problem: Problem, config: RunConfig, out: Path, chains: Sequence[int] | None = None) -> float:
    """Run chains and their forks, go on with them, or wait for who runs them; without `run`'s own evaluation.

    Of the configuration's chains those are run that are named; by default all.

    Returns
    -------
    float
        Seconds (of the last part, if it was interrupted).
    """
    with locked(out.with_name(f"{out.name}.lock"), wait_seconds=math.inf):
        finished = out / "finished.json"
        if not finished.is_file():
            started = time.perf_counter()
            run = Run(config, out, problem.data)
            write_json(run.places.config, to_json(config))
            for criterion in run.stages:
                open_stage(run, criterion)
            for index in range(config.chains) if chains is None else chains:
                take_chain(run, index, Silent())
            write_json(finished, {"seconds": time.perf_counter() - started})
        return float(read_json(finished)["seconds"])


def drawn(
    problem: Problem,
    stage: StagePlaces,
    start: int,
    cycles: int,
    draws: int,
    steps: int,
    seconds: float,
    chain: int = 0,
) -> Fit:
    """The draws of some cycles of `draws` each, and the mean of the last of them."""
    weights, model = WeightStore(stage.draws), problem.network()
    found = [weights.load(chain, draw) for draw in range(start * draws, (start + cycles) * draws)]
    load_network_state(model, {**network_state(model), **average(found[-draws:])})
    return Fit(model, Cost(steps * problem.batch_size, seconds), found)
