"""The stages that every chain of a run passes, on disk: dense, then one fork per in-chain criterion."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.loop import Stage, catch_signals, follow, skip
from sgmcmc_prune.chains.monitor import Monitor
from sgmcmc_prune.chains.record import Recorder, dims_at_probes
from sgmcmc_prune.chains.rehearsal import EXAMPLES, Rehearsal, check_lookups, rehearse
from sgmcmc_prune.chains.step_size import train
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.machine.distributed import ALONE, Ranks
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.prunable import prunable, trainable
from sgmcmc_prune.run.data import Probes
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import to_json
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.draws import DrawStore
from sgmcmc_prune.store.files import locked, write_json
from sgmcmc_prune.store.places import StagePlaces
from sgmcmc_prune.store.weights import WeightStore, estimate_bytes, require_space

#: Records of the training trace in an epoch; of a chain no more than so many, where an epoch is a few steps.
RECORDS_PER_EPOCH, MOST_RECORDS = 4, 2000


def take_chain(run: Run, index: int, bar: Any, ranks: Ranks = ALONE, store: DrawStore | None = None) -> None:
    """Take one chain through all its stages, whose stores exist; of its ranks, the first alone writes.

    `store` takes the place of the stages' own stores, where Zarr is missing: what only they would hold is then lost.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, with everything saved.
    RunError
        If the chain diverged; the draws before are kept.
    """
    with _lock(run, index) if ranks.first else nullcontext():
        for criterion in run.stages:
            bar.set_description(f"chain {index}, {criterion or 'dense'}")
            chain = _stage_chain(run, criterion, index, ranks, bar)
            if ranks.first:
                open_stage(run, criterion, store=store).run(chain, bar)
            else:
                follow(run.places.stage(criterion), chain)
            ranks.wait()  # the next stage starts from what the first rank has written
        take_control(run, index, bar)


def take_batched(run: Run, bar: Any) -> None:
    """Take all chains of a run through all their stages, in common steps.

    Raises
    ------
    Interrupted, RunError
        As `take_chain`.
    """
    with ExitStack() as locks:
        for index in range(run.config.chains):
            locks.enter_context(_lock(run, index))
        for criterion in run.stages:
            bar.set_description(f"{run.config.chains} chains, {criterion or 'dense'}")
            chains = [_stage_chain(run, criterion, index, ALONE, bar) for index in range(run.config.chains)]
            open_stage(run, criterion).run_batched(chains, bar)
        for index in range(run.config.chains):
            take_control(run, index, bar)


def take_control(run: Run, index: int, bar: Any) -> None:
    """Train what is the control of one chain, if the run has any, from its newest checkpoint.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, with everything saved.
    RunError
        If its loss is not finite.
    """
    if run.config.control is None:
        return
    bar.set_description(f"chain {index}, control")
    network, places = choices.make("control", run.config.control, run, index), run.places.control
    state, damaged = checkpoint.load_newest(places.checkpoint(index))
    for complaint in damaged:
        bar.write(complaint)
    if state is not None:
        network.load_state_dict(state)
    skip(bar, network.step)
    saved = time.monotonic()
    with catch_signals() as received:
        while network.step < network.num_steps:
            ended = network.advance()
            bar.update(1)
            if ended:
                _keep_control(run, index, network)
            if ended or received or time.monotonic() - saved > run.config.checkpoint_seconds:
                checkpoint.save(places.checkpoint(index), network.state_dict(), run.config.keep_checkpoints)
                saved = time.monotonic()
            if received:
                raise Interrupted(*received[:1])


def _keep_control(run: Run, index: int, network: Any) -> None:
    """Write the network, its mask and what it took, at the end of a stage."""
    places, stage = run.places, len(network.spent) - 1
    WeightStore(places.control.draws).save(index, stage, network_state(network.model))
    if stage:
        masks.save(places.control.mask(index, run.config.prune.targets[stage - 1]), network.mask)
    spent = [{"gradient_evaluations": count, "seconds": seconds} for count, seconds in network.spent]
    write_json(places.control_cost(index), {"stages": spent}, checksum=True)


def _lock(run: Run, index: int) -> AbstractContextManager[None]:
    """Keep a chain to oneself. A process whose parent was killed may still be dying: wait for it."""
    return locked(run.places.chain_lock(index), wait_seconds=30)


def measurable_chain(run: Run, index: int) -> Chain:
    """A chain whose steps can be timed and which is then thrown away: the dense one, in a burn-in without end."""
    return run.chain(index, replace(run.schedule(None), burn_in=2**62))


def _stage_chain(run: Run, criterion: str | None, index: int, ranks: Ranks, bar: Any) -> Chain:
    """One chain of a stage at its start: dense (no criterion), or from its dense end, with a pruner."""
    if criterion is None:
        chain = run.chain(index, run.schedule(None), ranks=ranks)
        if run.config.start == "trained":
            bar.set_postfix_str("a short training, to start from")
            train(chain.model, run.likelihood, chain.stream)
        return chain
    reference = None
    if make_criterion(criterion).copies_layers:
        first = run.places.stage(run.config.prune.in_chain[0])
        reference = [masks.load(first.mask(index, target)) for target in run.config.prune.targets]
    chain = run.chain(index, run.schedule(criterion), criterion, reference, ranks)
    chain.load_position(checkpoint.load(run.places.checkpoint(index)))
    return chain


def take_stage(run: Run, criterion: str, places: StagePlaces, progress: bool) -> None:
    """Take all chains through one fork from their dense ends, into a directory of its own.

    Raises
    ------
    Interrupted, RunError
        As `take_chain`; the same call goes on.
    """
    schedule = run.schedule(criterion)
    with (
        locked(run.places.lock),
        progress_bar(run.config.chains * schedule.num_steps, "step", disable=not progress) as bar,
    ):
        for index in range(run.config.chains):
            bar.set_description(f"chain {index}, {criterion}")
            open_stage(run, criterion, places=places).run(_stage_chain(run, criterion, index, ALONE, bar), bar)


def open_stage(
    run: Run,
    criterion: str | None,
    ranks: int = 1,
    progress: bool = False,
    places: StagePlaces | None = None,
    store: DrawStore | None = None,
) -> Stage:
    """Open the store of one stage unless it is given, or create it (then `ranks` processes share each chain)."""
    config, places, schedule = run.config, places or run.places.stage(criterion), run.schedule(criterion)
    model = run.model(0)
    prior, parameters = run.prior(model, 0), dict[str, Tensor](trainable(model))
    layers = list(prior.layers if isinstance(prior, SpikeSlab) else ()) or list(prunable(model))
    probes = run.probes
    recorder = Recorder(
        probes.inputs,
        probes.labels,
        run.likelihood,
        run.num_outputs,
        layers,
        parameters,
        prior,
        run.statistics_batches(),
    )
    record_every = max(1, int(run.steps_per_epoch / RECORDS_PER_EPOCH), schedule.num_steps // MOST_RECORDS)
    if store is None and places.store.exists():
        store = DrawStore.open(places.store)
    elif store is None:
        needed = estimate_bytes(network_state(model), schedule.num_draws, config.chains)
        require_space(places.directory, needed)
        if progress:
            draws = config.chains * schedule.num_draws
            print(f"weight draws in {places.draws}: {draws}, {needed / 1e6:.1f} MB", flush=True)
        store = DrawStore.create(
            places.store,
            recorder.groups(schedule.num_draws, schedule.num_steps // record_every),
            config.chains,
            static=_static(run, probes, parameters, layers),
            coords={**recorder.coords(), **run.probe_coords},
            attrs={
                "config": to_json(config),
                "departures": departures(run, model, prior, ranks),
                "lp_estimator": "minibatch",
                "integrator": run.sampler_class.integrator,
                "momentum": schedule(schedule.num_steps - 1).momentum,
            },
        )
    outputs, kept = run.likelihood.stored[0], store
    monitor = Monitor(
        run.likelihood,
        run.data.validation,
        run.data.dataset.unit,
        lambda chain: kept.written("posterior", chain, outputs),
        places.progress,
        config.tensorboard,
    )
    return Stage(places, recorder, store, record_every, config.checkpoint_seconds, config.keep_checkpoints, monitor)


def _static(run: Run, probes: Probes, parameters: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Any]:
    sizes = [parameters[name].numel() for name in layers]
    dims = ("probe", *[f"image_dim_{i}" for i in range(probes.inputs.dim() - 1)])
    return {
        "observed_data": {"y": (dims_at_probes(run.likelihood, probes.labels)["y"], probes.labels.cpu().numpy())},
        "constant_data": {
            "image": (dims, probes.inputs.cpu().numpy()),
            "probe_held_out": (("probe",), probes.held_out.numpy()),
            "layer_size": (("layer",), sizes),
            "parameter_size": (("parameter",), [p.numel() for p in parameters.values()]),
        },
    }


def check_inputs(run: Run, model: nn.Module) -> None:
    """ValueError where any example of a run holds an integer for which the network has no entry."""
    data = run.data
    for what, (inputs, _) in (("training", data.train[:2]), ("validation", data.validation), ("test", data.test)):
        check_lookups(model, inputs, f"{what} inputs")


def rehearsed(run: Run, model: nn.Module) -> Rehearsal:
    """What a network of a run can do, on the first of its training examples: no more than a minibatch holds.

    Raises
    ------
    ValueError
        For a network that cannot be sampled.
    """
    inputs, labels = (part[: min(EXAMPLES, run.config.data.batch_size)] for part in run.data.train[:2])
    return rehearse(model, inputs, labels, run.likelihood, run.num_outputs)


def departures(run: Run, model: nn.Module, prior: Prior, ranks: int = 1) -> list[str]:
    """Every way in which the draws are not draws from the stated Bayesian posterior, in words."""
    config = run.config
    network = rehearsed(run, model).departures
    minibatch = f"the part of its minibatch that one of {ranks} ranks takes"
    full = config.data.batch_size == run.num_data
    heat = "the dynamics are discretised" if full else "minibatch gradient noise heats the chain above T"
    found = [
        f"step size {config.sampler.lr_min:g} while sampling: {heat}",
        *prior.departures(config.em),
        f"temperature {config.sampler.temperature:g} instead of 1" if config.sampler.temperature != 1 else "",
        *(line if ranks == 1 else line.replace("the rest of its minibatch", minibatch) for line in network),
        f"augmentation {config.data.augmentation}: an image counts with ever new pixels, so there is no likelihood"
        if config.data.augmentation != "none"
        else "",
        "precision bfloat16: gradients are those of a network rounded to 8 significant bits; predictions are not"
        if config.precision == "bfloat16"
        else "",
        "in-chain forks: draws are conditional on a mask chosen from the same data" if config.prune.in_chain else "",
    ]
    return [line for line in found if line]
