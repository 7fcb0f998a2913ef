"""Draws of a finished run, pruned and moved by joint evidence: a stage of their own, with its masks and draws.

RUN/forks/conditional/masks/chain0-0.9.safetensors
RUN/forks/conditional/draws/chain0-00000.safetensors    target after target, as in a fork
"""

from collections.abc import Callable

from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.chains.rehearsal import EXAMPLES
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.conditional.curvature import curvature, make
from sgmcmc_prune.pruning.conditional.members import Members, check_blocks, members_of
from sgmcmc_prune.pruning.conditional.prune import (
    Conditional,
    Weights,
    by_evidence,
    follow,
    layers_of,
    path,
    precision_of,
)
from sgmcmc_prune.pruning.prunable import trainable
from sgmcmc_prune.run.directory import load_prior
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.places import StagePlaces
from sgmcmc_prune.store.weights import WeightStore

#: Key of the minibatches that curvatures see; no chain has it.
CURVATURE_CHAIN = 2**16 - 2


def settings_of(run: Run) -> Conditional:
    """How a run's configuration takes joint evidence."""
    p = run.config.prune
    return Conditional(
        p.curvature, choices.options(p.curvature_options, "prune.curvature_options"), p.stages, p.curvature_examples
    )


def members(run: Run, model: nn.Module) -> dict[str, Members]:
    """Where the groups of a run's prior are."""
    return members_of(model, run.groups(model), run.data.train[0][:EXAMPLES])


def check_conditional(run: Run, model: nn.Module) -> None:
    """ValueError if joint evidence cannot be taken of a network, or a curvature has other options, or fails."""
    settings, groups = settings_of(run), members(run, model)
    layers = layers_of(model, [own.layer for own in groups.values()])
    start = make(settings.curvature, dict(settings.options))
    sums = {layer.weight: start(layer) for layer in layers}
    if choices.is_own(settings.curvature):
        own, examples = [network_state(run.model(0))], (run.data.train[0][:2], run.data.train[1][:2])
        with choices.calling("curvature", settings.curvature):
            blocks = curvature(
                *(model, own, examples, layers, start),
                likelihood=run.likelihood,
                num_data=run.num_data,
                statistics=run.statistics_batches(),
            )
    else:
        blocks = {name: total.blocks(1.0) for name, total in sums.items()}
    check_blocks(groups, blocks)


def take_conditional(run: Run, stage: StagePlaces) -> None:
    """Prune the dense draws of every chain by joint evidence to every target, and keep masks and moved draws.

    Raises
    ------
    ValueError
        If a prunable weight belongs to no layer whose curvature is known, or the run kept no draws.
    """
    config, settings = run.config, settings_of(run)
    way, count = path(config.prune.targets, settings.stages), config.schedule.num_draws
    dense, moved = WeightStore(run.places.draws), WeightStore(stage.draws)
    for chain in range(config.chains):
        model = run.model(chain)
        followed = follow(
            model,
            [dense.load(chain, draw) for draw in range(count)],
            _examples(run, chain),
            _precision(run, model, chain),
            [by_evidence(sparsity, config.prune.allocation) for sparsity in way],
            settings,
            members=members(run, model),
            likelihood=run.likelihood,
            num_data=run.num_data,
            statistics=run.statistics_batches(),
            seed=config.seed * 2**16 + chain,
        )
        for sparsity, pruned in zip(way, followed, strict=True):
            if sparsity in config.prune.targets:
                k = config.prune.targets.index(sparsity)
                masks.save(stage.mask(chain, sparsity), pruned.mask)
                for draw, weights in enumerate(pruned.draws):
                    moved.save(chain, k * count + draw, weights)


def _examples(run: Run, chain: int) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    return lambda stage, count: run.stream(CURVATURE_CHAIN - chain, min(count, run.num_data)).batch(stage)


def _precision(run: Run, model: nn.Module, chain: int) -> Callable[[Weights], Weights]:
    """The precision of a chain's prior."""
    prior, trained = load_prior(run, model, chain), trainable(model).keys()
    return lambda weights: precision_of(prior, {n: w for n, w in weights.items() if n in trained})
