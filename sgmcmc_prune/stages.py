"""The stages that every chain of a run passes, on disk: dense, then one fork per in-chain criterion."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from sgmcmc_prune import build, checkpoint, likelihoods
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.loop import Stage, checkpoint_path, follow, mask_path
from sgmcmc_prune.chains.record import Recorder
from sgmcmc_prune.config import RunConfig, from_json, to_json
from sgmcmc_prune.distributed import ALONE, Ranks
from sgmcmc_prune.files import locked, read_json
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.rehearsal import EXAMPLES, Rehearsal, rehearse
from sgmcmc_prune.schedules import Cyclical
from sgmcmc_prune.store import DrawStore
from sgmcmc_prune.weights import estimate_bytes, require_space

RECORDS_PER_EPOCH = 4


def load_config(out: Path) -> RunConfig:
    """The configuration of a run directory; ValueError if it is none."""
    path = out / "config.json"
    if not path.is_file():
        raise ValueError(f"{out} is not a run directory: it has no config.json")
    config: RunConfig = from_json(read_json(path), where=f"{path}: config")
    _check_unchanged(out, config)
    return config


#: Settings that do not touch the draws of a run, which may be others afterwards.
FREE = (
    *("device", "execution", "checkpoint_seconds", "keep_checkpoints", "keep_weight_draws", "ranks_per_chain"),
    *("rank_timeout", "compile_network", "evaluate", "ood", "ood_dir", "data.data_dir", "data.workers"),
    *("sampler.implementation", "prune.post_hoc", "prune.fdr"),
)


#: Those of them that the evaluation depends on.
EVALUATION = ("evaluate", "ood", "ood_dir", "prune.post_hoc", "prune.fdr")


def drawn_with(out: Path) -> RunConfig | None:
    """The configuration with which the draws in a directory were made; None before there are any."""
    path = out / "posterior.zarr" / "zarr.json"
    if not path.is_file():
        return None
    stored = read_json(path).get("attributes", {}).get("config")
    if stored is None:
        raise ValueError(f"{path.parent} was written by an earlier release, without the configuration of its draws")
    config: RunConfig = from_json(stored, where=f"config in {path}")
    return config


def evaluation_settings(config: RunConfig) -> dict[str, Any]:
    """What the evaluation of a run depends on, by dotted name."""
    flat = _flat(to_json(config))
    return {name: flat[name] for name in EVALUATION}


def _check_unchanged(out: Path, config: RunConfig) -> None:
    """Refuse a configuration that is not the one with which the draws in a directory were made."""
    drawn = drawn_with(out)
    if drawn is None:
        return
    made, now = _flat(to_json(drawn)), _flat(to_json(config))
    if changed := [name for name in made if made[name] != now[name] and name not in FREE]:
        both = "; ".join(f"{name} is {now[name]!r}, and was {made[name]!r}" for name in changed)
        raise ValueError(f"{out / 'config.json'} is not the configuration of the draws beside it: {both}")


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def averages_path(out: Path, chain: int) -> Path:
    """Where the averages over the dense draws of a chain are kept once the run is finished."""
    return out / "averages" / f"chain{chain}.safetensors"


def load_averages(out: Path, chain: int) -> dict[str, Any]:
    """The averages over the dense draws of a chain: `inclusion` and `moments`, by layer.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are none yet, or the file is damaged.
    """
    path = averages_path(out, chain)
    state = checkpoint.load(path if path.is_file() else checkpoint_path(out, chain))
    return {"inclusion": state["inclusion"], "moments": state["moments"]}


def keep_averages(config: RunConfig, out: Path) -> None:
    """Keep what is read of a finished run, and delete what only a resume of unfinished chains would need."""
    for chain in range(config.chains):
        checkpoint.save(averages_path(out, chain), load_averages(out, chain))
    for criterion in stages(config):
        for path in (stage_directory(out, criterion) / "checkpoints").glob("*.safetensors*"):
            if not path.name.endswith(".damaged"):
                path.unlink()


def stages(config: RunConfig) -> tuple[str | None, ...]:
    """The stages that every chain passes: dense (None), then one fork per in-chain criterion."""
    return (None, *config.prune.in_chain)


def num_steps(config: RunConfig, data: build.Data) -> int:
    """Steps of one chain in all its stages."""
    return sum(stage_schedule(config, data, criterion).num_steps for criterion in stages(config))


def take_chain(config: RunConfig, data: build.Data, out: Path, index: int, bar: Any, ranks: Ranks = ALONE) -> None:
    """Take one chain through all its stages, whose stores exist; of its ranks, the first alone writes.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, with everything saved.
    RunError
        If the chain diverged; the draws before are kept.
    """
    with _lock(out, index) if ranks.first else nullcontext():
        for criterion in stages(config):
            bar.set_description(f"chain {index}, {criterion or 'dense'}")
            chain = _stage_chain(config, data, out, criterion, index, ranks)
            if ranks.first:
                open_stage(config, data, out, criterion).run(chain, bar)
            else:
                follow(stage_directory(out, criterion), chain)
            ranks.wait()  # the next stage starts from what the first rank has written


def take_batched(config: RunConfig, data: build.Data, out: Path, bar: Any) -> None:
    """Take all chains of a run through all their stages, in common steps.

    Raises
    ------
    Interrupted, RunError
        As `take_chain`.
    """
    with ExitStack() as locks:
        for index in range(config.chains):
            locks.enter_context(_lock(out, index))
        for criterion in stages(config):
            bar.set_description(f"{config.chains} chains, {criterion or 'dense'}")
            chains = [_stage_chain(config, data, out, criterion, index, ALONE) for index in range(config.chains)]
            open_stage(config, data, out, criterion).run_batched(chains, bar)


def _lock(out: Path, index: int) -> AbstractContextManager[None]:
    """Keep a chain to oneself. A process whose parent was killed may still be dying: wait for it."""
    return locked(out / "checkpoints" / f"chain{index}.lock", wait_seconds=30)


def stage_directory(out: Path, criterion: str | None) -> Path:
    """Where a stage keeps its files."""
    return out if criterion is None else out / "forks" / criterion


def stage_schedule(config: RunConfig, data: build.Data, criterion: str | None) -> Cyclical:
    """The schedule of one stage, in steps."""
    make = build.dense_schedule if criterion is None else build.fork_schedule
    return make(config, len(data.train[1]) / config.data.batch_size)


def measurable_chain(config: RunConfig, data: build.Data, index: int) -> Chain:
    """A chain whose steps can be timed and which is then thrown away: the dense one, in a burn-in without end."""
    schedule = replace(stage_schedule(config, data, None), burn_in=2**62)
    return build.build_chain(config, data, index, schedule)


def _stage_chain(
    config: RunConfig, data: build.Data, out: Path, criterion: str | None, index: int, ranks: Ranks
) -> Chain:
    """One chain of a stage at its start: dense (no criterion), or from its dense end, with a pruner."""
    schedule = stage_schedule(config, data, criterion)
    if criterion is None:
        return build.build_chain(config, data, index, schedule, ranks=ranks)
    reference = None
    if criterion == "random":
        first = out / "forks" / config.prune.in_chain[0]
        reference = [masks.load(mask_path(first, index, t)) for t in config.prune.targets]
    pruner = build.build_pruner(config, data, build.build_model(config, data, index), criterion, index, reference)
    chain = build.build_chain(config, data, index, schedule, pruner, ranks)
    chain.load_position(checkpoint.load(checkpoint_path(out, index)))
    return chain


def open_stage(
    config: RunConfig, data: build.Data, out: Path, criterion: str | None, ranks: int = 1, progress: bool = False
) -> Stage:
    """Open the store of one stage, or create it (then `ranks` processes share each chain)."""
    directory = stage_directory(out, criterion)
    schedule = stage_schedule(config, data, criterion)
    chain = build.build_chain(config, data, 0, schedule)
    probes = build.probes(config, data)
    layers = list(chain.inclusion) or list(prunable(chain.model))
    classes, statistics = data.dataset.num_classes, build.statistics_batches(config, data)
    recorder = Recorder(probes.inputs, probes.labels, classes, layers, chain.parameters, chain.prior, statistics)
    record_every = max(1, int(chain.stream.steps_per_epoch / RECORDS_PER_EPOCH))
    path = directory / "posterior.zarr"
    if path.exists():
        store = DrawStore.open(path)
    else:
        needed = estimate_bytes(network_state(chain.model), schedule.num_draws, config.chains)
        require_space(directory, needed)
        if progress:
            draws = config.chains * schedule.num_draws
            tqdm.write(f"weight draws in {directory / 'draws'}: {draws}, {needed / 1e6:.1f} MB")
        store = DrawStore.create(
            path,
            recorder.groups(schedule.num_draws, schedule.num_steps // record_every),
            config.chains,
            static=_static(probes, chain, layers),
            coords=recorder.coords(),
            attrs={
                "config": to_json(config),
                "departures": departures(config, data, chain.model, ranks),
                "lp_estimator": "minibatch",
                "integrator": chain.sampler.integrator,
                "momentum": schedule(schedule.num_steps - 1).momentum,
            },
        )
    return Stage(directory, recorder, store, record_every, config.checkpoint_seconds, config.keep_checkpoints)


def _static(probes: build.Probes, chain: Chain, layers: Sequence[str]) -> dict[str, Any]:
    sizes = [chain.parameters[name].numel() for name in layers]
    dims = ("probe", *[f"image_dim_{i}" for i in range(probes.inputs.dim() - 1)])
    return {
        "observed_data": {"y": (("probe",), probes.labels.cpu().numpy())},
        "constant_data": {
            "image": (dims, probes.inputs.cpu().numpy()),
            "probe_held_out": (("probe",), probes.held_out.numpy()),
            "layer_size": (("layer",), sizes),
            "parameter_size": (("parameter",), [p.numel() for p in chain.parameters.values()]),
        },
    }


def rehearsed(config: RunConfig, data: build.Data, model: nn.Module) -> Rehearsal:
    """What a network of a run can do, on the first of its training examples: no more than a minibatch holds.

    Raises
    ------
    ValueError
        For a network that cannot be sampled.
    """
    inputs, labels = (part[: min(EXAMPLES, config.data.batch_size)] for part in data.train)
    return rehearse(model, inputs, labels, likelihoods.categorical, data.dataset.num_classes)


def departures(config: RunConfig, data: build.Data, model: nn.Module, ranks: int = 1) -> list[str]:
    """Every way in which the draws are not draws from the stated Bayesian posterior, in words."""
    network = rehearsed(config, data, model).departures
    minibatch = f"the part of its minibatch that one of {ranks} ranks takes"
    found = [
        f"step size {config.sampler.lr_min:g} while sampling: minibatch gradient noise heats the chain above T",
        "hyperparameters of the prior are fitted to the same data; draws are conditional on them"
        if config.prior.family in ("spike_slab", "laplace", "student_t") and config.em.kind != "fixed"
        else "",
        f"temperature {config.sampler.temperature:g} instead of 1" if config.sampler.temperature != 1 else "",
        "mode em: the chain targets a Gaussian posterior with held precisions, not the mixture posterior"
        if config.prior.family == "spike_slab" and config.prior.mode == "em"
        else "",
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
