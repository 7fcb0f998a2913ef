"""The main job: sample, learn the sparsity, prune post hoc and in the chain, evaluate, leave a run directory.

`run` starts a directory and `resume` continues one; both go through the same stages, each of which skips what is done:

    dense chains  ->  one fork per in-chain criterion  ->  metrics.json and the table.

Under `torchrun` every process calls the same function. The first writes and evaluates; the others take their part in
the chains (`distributed`), and return an empty dict when those are finished.
"""

import os
import platform
import shutil
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgmcmc_prune import __version__, choices
from sgmcmc_prune.chains.batched import require_batchable
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.execution import Mode, choose
from sgmcmc_prune.chains.loop import interruptible
from sgmcmc_prune.chains.memory import require_evaluation_memory, require_memory
from sgmcmc_prune.chains.processes import num_workers, run_in_processes, worker_commands
from sgmcmc_prune.chains.rehearsal import unchanged
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.machine import distributed
from sgmcmc_prune.machine.distributed import LostRank, Ranks
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.priors.rehearsal import rehearse_prior
from sgmcmc_prune.run.checks import check_choices, check_device, check_precision
from sgmcmc_prune.run.conditional import check_conditional
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.decide import asked_post_hoc, rehearse_criterion
from sgmcmc_prune.run.directory import differing, evaluation_settings, keep_averages, load_config, open_run
from sgmcmc_prune.run.evaluate import evaluate, foreign_inputs, tables
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import (
    check_inputs,
    departures,
    measurable_chain,
    open_stage,
    rehearsed,
    take_batched,
    take_chain,
)
from sgmcmc_prune.run.unread import unread_settings
from sgmcmc_prune.samplers import tiers
from sgmcmc_prune.samplers.rehearsal import rehearse_sampler
from sgmcmc_prune.settings import to_json
from sgmcmc_prune.store.files import finite_or_null, locked, read_json, write_json
from sgmcmc_prune.store.places import RunPlaces


def run(config: RunConfig, out: Path, overwrite: bool = False, progress: bool = True) -> dict[str, Any]:
    """Run a configuration into a new directory.

    Parameters
    ----------
    config : RunConfig
    out : Path
        Must not exist, or be empty, unless `overwrite`. When `torchrun` starts this anew after a failure, it goes on
        with what is there.
    overwrite : bool
        Delete an earlier *run* in `out` first.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        The content of `metrics.json`; empty on all ranks but the first.

    Raises
    ------
    ValueError
        For bad input, before anything is computed or deleted.
    RunError
        If a chain diverged; draws stored before are kept.
    Interrupted
        After SIGINT or SIGTERM; `resume` continues.
    """
    return start(Run(config, out), overwrite, progress)


def start(job: Run, overwrite: bool = False, progress: bool = True) -> dict[str, Any]:
    """As `run`, of a run whose parts may be objects instead of names."""
    with distributed.world() as world, ExitStack() as held:
        world.together(lambda: job.read_anew() if overwrite else job.data)
        world.first_only(lambda: _prepare(job, overwrite, world, held))
        return _work(job, progress, world)


def resume(out: Path, progress: bool = True, job: Run | None = None) -> dict[str, Any]:
    """Continue a run that was killed or interrupted; a finished run is evaluated again.

    The number of processes may be another than before: the chains then go on equal to rounding, and `run.json` says so.

    Parameters
    ----------
    out : Path
    progress : bool
    job : Run, optional
        The run with the objects that it was started with, if it was started with any.

    Raises
    ------
    ValueError
        If `out` is not a run directory, or `job` has another configuration.
    """
    with distributed.world() as world, ExitStack() as held:
        world.first_only(lambda: _take_up(out, world, held))
        if job is not None and (other := differing(load_config(out), job.config)):
            raise ValueError(
                f"{out} holds a run with other settings ({', '.join(other)}); give the same ones, another directory, "
                "or overwrite it (overwrite=True, --overwrite)"
            )
        job = job or open_run(out)
        world.together(lambda: job.data)
        if not job.config.keep_weight_draws and _finished(out):
            return world.first_only(lambda: _stored(job)) or {}
        return _work(job, progress, world)


def _stored(job: Run) -> dict[str, Any]:
    """The table of a finished run whose draws are gone; ValueError if another evaluation is asked for."""
    metrics: dict[str, Any] = read_json(job.places.metrics, checksum=True)
    asked, done = evaluation_settings(job.config), metrics["evaluation"]
    if changed := [name for name in done if asked[name] != done[name]]:
        raise ValueError(
            f"{job.out} cannot be evaluated with another {', '.join(changed)}: its draws are gone; a run keeps them "
            "with --keep-weight-draws"
        )
    _clean(job)
    return metrics


def _clean(job: Run) -> None:
    """Leave of a finished run what is read again."""
    shutil.rmtree(job.places.rows, ignore_errors=True)
    keep_averages(job)
    if not job.config.keep_weight_draws:
        for stage in (*map(job.places.stage, job.stages), job.places.control):
            shutil.rmtree(stage.draws, ignore_errors=True)


def _take_up(out: Path, world: Ranks, held: ExitStack) -> None:
    """Check that a directory can be continued, and keep others out of it."""
    config = load_config(out)
    _check_processes(config, world)
    check_choices(config)
    choices.require_same(_earlier(out).get("own", {}), choices.places(config))
    held.enter_context(locked(RunPlaces(out).lock))


def _finished(out: Path) -> bool:
    return bool(_earlier(out).get("status") == "finished")


def _earlier(out: Path) -> dict[str, Any]:
    """What `run.json` says of the run so far; empty before it has begun."""
    path = RunPlaces(out).info
    return dict(read_json(path, checksum=True)) if path.is_file() else {}


def _prepare(job: Run, overwrite: bool, world: Ranks, held: ExitStack) -> None:
    """Take the directory for oneself, refuse what cannot run, and only then delete or write anything in it."""
    config, out = job.config, job.places.directory
    _check_processes(config, world)
    check_choices(config)
    if overwrite:  # a process alone, which has not read together with others
        job.read_anew()
    made = _take(out, held)
    try:
        if world.restarted and RunPlaces(out).config.is_file() and load_config(out) == config:
            return
        old = [path for path in out.iterdir() if path != RunPlaces(out).lock]
        if old and not overwrite:
            raise ValueError(
                f"{out} exists and is not empty; choose another --out, continue it with "
                f"`sgmcmc-prune resume {out}`, or replace it with --overwrite"
            )
        if old and not RunPlaces(out).config.is_file():
            raise ValueError(f"{out} is not a run directory, so --overwrite will not delete it; choose another --out")
        _check(job, world)
    except BaseException:
        if made:  # a run that is refused leaves nothing
            held.close()
            RunPlaces(out).lock.unlink()
            for directory in made:
                directory.rmdir()
        raise
    for path in old:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(job.places.config, to_json(config))


def _take(out: Path, held: ExitStack) -> list[Path]:
    """Hold the lock of a directory, made if there is none; give the directories that were made, inner ones first."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another --out")
    made = [directory for directory in (out, *out.parents) if not directory.exists()]
    held.enter_context(locked(RunPlaces(out).lock))
    return made


def _check_processes(config: RunConfig, world: Ranks) -> None:
    check_device(config.device)
    check_precision(config.precision, config.device)
    if world.size > 1 and config.control:
        raise ValueError(
            f"control is {config.control!r}, which one process trains, and torchrun started {world.size}; leave it "
            "out, or run without torchrun"
        )
    if world.size > 1 and ":" in config.device:
        raise ValueError(f"device is {config.device!r}, for {world.size} processes; give 'cuda': each takes its own")
    _ranks_per_chain(config, world)


def _ranks_per_chain(config: RunConfig, world: Ranks) -> int:
    if world.size == 1:
        return 1
    return distributed.ranks_per_chain(world.size, config.chains, config.data.batch_size, config.ranks_per_chain)


def _check(job: Run, world: Ranks) -> None:
    """Build one chain and its pruners, so that a bad setting is refused before a directory is made."""
    config = job.config
    if config.schedule.cycles < 1:
        raise ValueError(f"schedule.cycles is {config.schedule.cycles}; a run draws in at least one cycle")
    foreign_inputs(job)
    _ = job.probes
    model = job.model(0)
    found = rehearsed(job, model)
    check_inputs(job, model)
    if (config.prune.in_chain or config.prune.post_hoc) and not job.groups(model):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.not_prunable.items())
        raise ValueError(f"the network has no weight that may be pruned ({reasons}); run without prune criteria")
    if any(make_criterion(name).moves for name in config.prune.post_hoc):
        check_conditional(job, model)
    for criterion in job.stages:
        job.schedule(criterion)
        if criterion is not None:
            job.pruner(model, criterion, 0, None)
    chain = job.chain(0, job.schedule(None))
    with unchanged(model):
        _rehearse_own(job, model, chain)
    if config.execution == "batched":
        require_batchable(chain)
    _check_memory(config, chain, world)


def _check_memory(config: RunConfig, chain: Chain, world: Ranks) -> None:
    """Refuse what the memory of the first rank's machine could not hold, with all ranks that are there."""
    here = distributed.processes_here() if world.size > 1 else 1
    if world.size > 1:
        at_once = here if torch.device(config.device).type == "cpu" else 1  # each has a GPU of its own
    else:
        at_once = {"processes": num_workers(config.chains), "batched": config.chains}.get(config.execution, 1)
    require_memory(chain, at_once)
    if rows := len(asked_post_hoc(config)):
        require_evaluation_memory(chain, config.chains, rows, world.size, here)


def _rehearse_own(job: Run, model: nn.Module, chain: Chain) -> None:
    """Let a user's own parts see the start of a chain, so that they do not fail at its end, or go wrong in silence."""
    config, prior, params, groups = job.config, job.prior(model, 0), chain.parameters, job.groups(model)
    if choices.is_own(config.prior.family):
        with choices.calling("prior", config.prior.family):
            rehearse_prior(prior, params, masked=groups if config.prune.in_chain else ())
    s = config.sampler
    for kind, name in (("mass matrix", s.preconditioner), ("sampler", s.name)):
        if choices.is_own(name):
            with choices.calling(kind, name):
                rehearse_sampler(chain.sampler)
    own = any(map(choices.is_own, config.prune.decisions))
    for name in dict.fromkeys((*config.prune.post_hoc, *config.prune.in_chain)):
        if own or choices.is_own(name):
            rehearse_criterion(config, name, prior, params, groups)


def _work(job: Run, progress: bool, world: Ranks) -> dict[str, Any]:
    sampled = world.any(world.first and _finished(job.places.directory))
    if not world.first:
        _others_work(job, world, sampled)
        return {}
    with interruptible():
        return _first_work(job, progress, world, sampled)


def _others_work(job: Run, world: Ranks, sampled: bool) -> None:
    """The part of a rank that is not the first; it stays until the first has evaluated the run.

    If the first was killed, or hangs, one of the others writes what became of the run.
    """
    try:
        with world.telling():
            if not sampled:
                _run_ranks(job, False, world)
            tables(job, False, world.rank, world.size)
            world.wait_for_first()  # which has computed its share of the rows
            world.wait_for_first()
    except LostRank as lost:
        with distributed.deaf():
            if 0 in lost.among:
                _end_without_first(job, str(lost))
        raise


def _end_without_first(job: Run, reason: str) -> None:
    """Write that a run has failed whose first rank was killed, or hangs: that one keeps the lock."""
    with ExitStack() as held:
        with suppress(ValueError):
            held.enter_context(locked(job.places.lock, wait_seconds=3))
        info = _earlier(job.places.directory)
        if info.get("status") == "running":
            _write_info(job, {**info, "status": "failed", "error": reason})


def _first_work(job: Run, progress: bool, world: Ranks, sampled: bool) -> dict[str, Any]:
    started = time.time()
    info = _describe(job, world)
    if progress:
        for line in info["unread"]:
            print(f"note: {line}", file=sys.stderr, flush=True)
    before = _earlier(job.places.directory).get("seconds", 0.0)
    if not sampled:
        _write_info(job, {**info, "status": "running", "seconds": before})
    try:
        if not sampled:
            with world.telling():
                _run_chains(job, progress, world, info["execution"]["mode"])
        if world.size > 1:
            with world.others_wait():
                tables(job, progress, world.rank, world.size)
        with world.others_wait():
            metrics = evaluate(job, progress)
    except (Exception, Interrupted) as error:  # whatever it is: nobody should wait for a run that has ended
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        if not sampled:  # what was sampled stays so, whatever its evaluation says
            ended = {"status": status, "error": str(error), "seconds": before + time.time() - started}
            with distributed.deaf():
                _write_info(job, {**info, **_damaged_checkpoints(job), **ended})
        raise
    info["departures"] += metrics["diagnostics"]["temperature"]["findings"]
    metrics["departures"] = len(info["departures"])
    write_json(job.places.metrics, finite_or_null(metrics), checksum=True)
    seconds = before if sampled else before + time.time() - started
    info |= {**_damaged_checkpoints(job), "status": "finished", "seconds": seconds}
    _write_info(job, info)
    _clean(job)
    return metrics


def _write_info(job: Run, info: dict[str, Any]) -> None:
    write_json(job.places.info, info, checksum=True)


def _damaged_checkpoints(job: Run) -> dict[str, list[str]]:
    """The checkpoints that were set aside in this run's life."""
    out = job.places.directory
    return {"damaged_checkpoints": sorted(str(p.relative_to(out)) for p in out.rglob("checkpoints/*.damaged"))}


def _run_chains(job: Run, progress: bool, world: Ranks, mode: Mode) -> None:
    """The dense chains (burn-in with EM, then draws at fixed hyperparameters), and the fork of every criterion."""
    for criterion in job.stages:
        open_stage(job, criterion, _ranks_per_chain(job.config, world), progress)
    total = job.config.chains * job.num_steps
    if mode == "loop":
        _run_ranks(job, progress, world)
    elif mode == "processes":
        run_in_processes(job.places.directory, job.config.chains, total, progress)
    else:
        with _bar(total, progress) as bar:
            take_batched(job, bar)


def _execution(job: Run, world: Ranks) -> dict[str, Any]:
    """How the chains are taken, and if that was measured, what each way was predicted to cost; a resume keeps it."""
    config, out = job.config, job.places.directory
    if world.size > 1 or config.chains == 1:
        return {"mode": "loop"}
    if config.execution != "auto":
        return {"mode": config.execution}
    if before := _earlier(out).get("execution"):
        return dict(before)
    choice = choose(
        lambda index: measurable_chain(job, index),
        config.chains,
        job.num_steps,
        [] if job.given else worker_commands("measure", out, config.chains)[: num_workers(config.chains)],
    )
    return {"mode": choice.mode, "predicted_seconds": choice.predicted_seconds}


def _bar(total: int, progress: bool) -> Any:
    return progress_bar(total, "step", disable=not progress)


def _run_ranks(job: Run, progress: bool, world: Ranks) -> None:
    """Take this process's part: all chains in a loop, or its part in the chains of its group of ranks."""
    config = job.config
    ranks, chains = distributed.divide(world, config.chains, _ranks_per_chain(config, world), config.rank_timeout)
    world.wait()  # the stores exist
    with _bar(len(chains) * job.num_steps, progress) as bar:
        for index in chains:
            take_chain(job, index, bar, ranks)
    world.wait()  # all chains of all groups are finished


def _describe(job: Run, world: Ranks) -> dict[str, Any]:
    config, data, model = job.config, job.data, job.model(0)
    parameters, ranks = list(model.parameters()), _ranks_per_chain(job.config, world)
    return {
        "library": {"name": "sgmcmc_prune", "version": __version__},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        "data": {
            **data.dataset.provenance,
            "train": len(data.train[1]),
            "validation": len(data.validation[1]),
            "test": len(data.test[1]),
        },
        "implementation": {
            "tier": tiers.choose(config.sampler.implementation, parameters),
            "obstacle": tiers.why_not_compiled(parameters),
        },
        "execution": _execution(job, world),
        "processes": _history(job.places.directory, {"processes": world.size, "ranks_per_chain": ranks}),
        "departures": departures(job, model, job.prior(model, 0), ranks),
        "unread": unread_settings(job),
        **({"own": own} if (own := choices.places(config)) else {}),
    }


def _history(out: Path, now: dict[str, int]) -> list[dict[str, int]]:
    """How many processes took the run, one after the other: where `ranks_per_chain` changes, rounding does."""
    before: list[dict[str, int]] = _earlier(out).get("processes", [])
    return before if before[-1:] == [now] else [*before, now]
