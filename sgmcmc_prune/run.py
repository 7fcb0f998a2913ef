"""The main job: sample, learn the sparsity, prune post hoc and in the chain, evaluate, leave a run directory.

`run` starts a directory and `resume` continues one; both go through the same stages, each of which skips what is done:

    dense chains  ->  one fork per in-chain criterion  ->  metrics.json and the table.
"""

import os
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sgmcmc_prune import __version__, build, checkpoint
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.loop import Interrupted, Stage, run_chains
from sgmcmc_prune.chains.processes import run_in_processes
from sgmcmc_prune.chains.record import Recorder
from sgmcmc_prune.config import RunConfig, from_json, to_json
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.evaluate import evaluate
from sgmcmc_prune.files import locked
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.masks import prunable
from sgmcmc_prune.samplers import tiers
from sgmcmc_prune.schedules import Cyclical
from sgmcmc_prune.store import DrawStore
from sgmcmc_prune.weights import estimate_bytes, require_space

RECORDS_PER_EPOCH = 4


def run(config: RunConfig, out: Path, overwrite: bool = False, progress: bool = True) -> dict[str, Any]:
    """Run a configuration into a new directory.

    Parameters
    ----------
    config : RunConfig
    out : Path
        Must not exist, or be empty, unless `overwrite`.
    overwrite : bool
        Delete an earlier *run* in `out` first.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        The content of `metrics.json`.

    Raises
    ------
    ValueError
        For bad input, before anything is computed or deleted.
    RunError
        If a chain diverged; draws stored before are kept.
    Interrupted
        After SIGINT or SIGTERM; `resume` continues.
    """
    build.check_device(config.device)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise ValueError(
                f"{out} exists and is not empty; choose another --out, continue it with "
                f"`sgmcmc-prune resume {out}`, or replace it with --overwrite"
            )
        _remove_run(out)
    data = build.load_data(config)
    _check(config, data)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(out / "config.json", to_json(config))
    return _work(config, data, out, progress)


def resume(out: Path, progress: bool = True) -> dict[str, Any]:
    """Continue a run that was killed or interrupted; a finished run is evaluated again.

    Raises
    ------
    ValueError
        If `out` is not a run directory.
    """
    config = load_config(out)
    build.check_device(config.device)
    if not config.keep_weight_draws and _finished(out):
        metrics: dict[str, Any] = checkpoint.read_json(out / "metrics.json")  # its draws are gone
        return metrics
    return _work(config, build.load_data(config), out, progress)


def _finished(out: Path) -> bool:
    path = out / "run.json"
    return path.is_file() and bool(checkpoint.read_json(path)["status"] == "finished")


def load_config(out: Path) -> RunConfig:
    """The configuration of a run directory; ValueError if it is none."""
    path = out / "config.json"
    if not path.is_file():
        raise ValueError(f"{out} is not a run directory: it has no config.json")
    config: RunConfig = from_json(checkpoint.read_json(path))
    return config


def _check(config: RunConfig, data: build.Data) -> None:
    """Build one chain and one pruner, so that a bad setting is refused before a directory is made."""
    steps_per_epoch = len(data.train[1]) / config.data.batch_size
    chain = build.build_chain(config, data, 0, build.dense_schedule(config, steps_per_epoch))
    build.fork_schedule(config, steps_per_epoch)
    for criterion in config.prune.in_chain:
        build.build_pruner(config, chain.model, criterion, 0, None)


def _work(config: RunConfig, data: build.Data, out: Path, progress: bool) -> dict[str, Any]:
    with locked(out / ".lock"):
        return _locked_work(config, data, out, progress)


def _locked_work(config: RunConfig, data: build.Data, out: Path, progress: bool) -> dict[str, Any]:
    started = time.time()
    info = _describe(config, data)
    checkpoint.write_json(out / "run.json", {**info, "status": "running"})
    try:
        _run_chains(config, data, out, progress)
        metrics = evaluate(config, data, out, progress)
    except (RunError, Interrupted) as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        checkpoint.write_json(out / "run.json", {**info, "status": status, "error": str(error)})
        raise
    checkpoint.write_json(out / "metrics.json", checkpoint.finite_or_null(metrics))
    info["departures"] += metrics["diagnostics"]["temperature"]["findings"]
    checkpoint.write_json(out / "run.json", {**info, "status": "finished", "seconds": time.time() - started})
    if not config.keep_weight_draws:
        for stage in (out, *(out / "forks" / criterion for criterion in config.prune.in_chain)):
            shutil.rmtree(stage / "draws", ignore_errors=True)
    return metrics


def _run_chains(config: RunConfig, data: build.Data, out: Path, progress: bool) -> None:
    """The dense chains (burn-in with EM, then draws at fixed hyperparameters), and the fork of every criterion."""
    in_processes = config.execution == "processes" and config.chains > 1
    for criterion in stages(config):
        stage = open_stage(config, data, out, criterion, progress)
        if not in_processes:
            chains = [stage_chain(config, data, out, criterion, c) for c in range(config.chains)]
            title = "dense chains" if criterion is None else f"in chain: {criterion}"
            run_chains(stage, chains, title, progress)
    if in_processes:
        steps = sum(_schedule(config, data, criterion).num_steps for criterion in stages(config))
        run_in_processes(out, config.chains, config.chains * steps, progress)


def stages(config: RunConfig) -> tuple[str | None, ...]:
    """The stages that every chain passes: dense (None), then one fork per in-chain criterion."""
    return (None, *config.prune.in_chain)


def _schedule(config: RunConfig, data: build.Data, criterion: str | None) -> Cyclical:
    make = build.dense_schedule if criterion is None else build.fork_schedule
    return make(config, len(data.train[1]) / config.data.batch_size)


def stage_chain(config: RunConfig, data: build.Data, out: Path, criterion: str | None, index: int) -> Chain:
    """One chain of a stage at its start: dense (no criterion), or from its dense end, with a pruner."""
    schedule = _schedule(config, data, criterion)
    if criterion is None:
        return build.build_chain(config, data, index, schedule)
    reference = None
    if criterion == "random":
        first = out / "forks" / config.prune.in_chain[0]
        reference = [masks.load(first / "masks" / f"chain{index}-{t:g}.safetensors") for t in config.prune.targets]
    pruner = build.build_pruner(config, build.build_model(config, data, index), criterion, index, reference)
    chain = build.build_chain(config, data, index, schedule, pruner)
    chain.load_position(checkpoint.load(out / "checkpoints" / f"chain{index}.safetensors"))
    return chain


def open_stage(config: RunConfig, data: build.Data, out: Path, criterion: str | None, progress: bool = False) -> Stage:
    """Open or create the store of one stage."""
    directory = out if criterion is None else out / "forks" / criterion
    schedule = _schedule(config, data, criterion)
    chain = build.build_chain(config, data, 0, schedule)
    inputs, labels = (t[: config.probes] for t in data.train)
    layers = list(chain.inclusion) or list(prunable(chain.model))
    recorder = Recorder(inputs, labels, data.dataset.num_classes, layers, chain.parameters)
    record_every = max(1, int(chain.stream.steps_per_epoch / RECORDS_PER_EPOCH))
    path = directory / "posterior.zarr"
    if path.exists():
        store = DrawStore.open(path)
    else:
        needed = estimate_bytes(chain.model.state_dict(), schedule.num_draws, config.chains)
        require_space(directory, needed)
        if progress:
            draws = config.chains * schedule.num_draws
            tqdm.write(f"weight draws in {directory / 'draws'}: {draws}, {needed / 1e6:.1f} MB")
        store = DrawStore.create(
            path,
            recorder.groups(schedule.num_draws, schedule.num_steps // record_every),
            config.chains,
            static=_static(inputs, labels, chain, layers),
            coords=recorder.coords(),
            attrs={
                "departures": departures(config, chain.model),
                "lp_estimator": "minibatch",
                "integrator": chain.sampler.integrator,
                "momentum": schedule(schedule.num_steps - 1).momentum,
            },
        )
    return Stage(directory, recorder, store, record_every, config.checkpoint_seconds)


def _static(inputs: Tensor, labels: Tensor, chain: Chain, layers: Sequence[str]) -> dict[str, Any]:
    sizes = [chain.parameters[name].numel() for name in layers]
    dims = ("probe", *[f"image_dim_{i}" for i in range(inputs.dim() - 1)])
    return {
        "observed_data": {"y": (("probe",), labels.cpu().numpy())},
        "constant_data": {
            "image": (dims, inputs.cpu().numpy()),
            "layer_size": (("layer",), sizes),
            "parameter_size": (("parameter",), [p.numel() for p in chain.parameters.values()]),
        },
    }


def departures(config: RunConfig, model: nn.Module) -> list[str]:
    """Every way in which the draws are not draws from the stated Bayesian posterior, in words."""
    found = [
        f"step size {config.sampler.lr_min:g} while sampling: minibatch gradient noise heats the chain above T",
        "hyperparameters of the prior are fitted to the same data; draws are conditional on them"
        if config.prior.family in ("spike_slab", "laplace", "student_t") and config.em.kind != "fixed"
        else "",
        f"temperature {config.sampler.temperature:g} instead of 1" if config.sampler.temperature != 1 else "",
        "mode em: the chain targets a Gaussian posterior with held precisions, not the mixture posterior"
        if config.prior.family == "spike_slab" and config.prior.mode == "em"
        else "",
        "batch normalisation: the likelihood of an example depends on its minibatch"
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        else "",
        f"augmentation {config.data.augmentation}: an image counts with ever new pixels, so there is no likelihood"
        if config.data.augmentation != "none"
        else "",
        "in-chain forks: draws are conditional on a mask chosen from the same data" if config.prune.in_chain else "",
    ]
    return [line for line in found if line]


def _describe(config: RunConfig, data: build.Data) -> dict[str, Any]:
    model = build.build_model(config, data, 0)
    parameters = list(model.parameters())
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
        "departures": departures(config, model),
    }


def _remove_run(out: Path) -> None:
    """Delete an earlier run; refuse to delete anything that is not one."""
    if not (out / "config.json").is_file():
        raise ValueError(f"{out} is not a run directory, so --overwrite will not delete it; choose another --out")
    shutil.rmtree(out)
