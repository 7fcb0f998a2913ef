"""A run's directory as it is read again: its configuration, which must be that of its draws, and its averages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sgmcmc_prune import choices
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import from_json, to_json
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces


def open_run(out: Path) -> Run:
    """The run of a directory; ValueError if it is none."""
    return Run(load_config(out), out)


def load_config(out: Path) -> RunConfig:
    """The configuration of a run directory; ValueError if it is none."""
    path = RunPlaces(out).config
    if not path.is_file():
        raise ValueError(f"{out} is not a run directory: it has no config.json")
    config: RunConfig = from_json(read_json(path), RunConfig, where=f"{path}: config")
    _check_unchanged(out, config)
    if RunPlaces(out).info.is_file():
        choices.remember(read_json(RunPlaces(out).info, checksum=True).get("own", {}))
    return config


#: Settings that do not touch the draws of a run, which may be others afterwards.
FREE = (
    *("device", "execution", "checkpoint_seconds", "keep_checkpoints", "keep_weight_draws", "ranks_per_chain"),
    *("rank_timeout", "compile_network", "evaluate", "ood", "ood_dir", "data.data_dir", "data.workers"),
    *("sampler.implementation", "prune.post_hoc", "prune.decisions", "prune.fdr", "prune.loss_budget"),
    *("prune.curvature", "prune.curvature_options", "prune.curvature_examples", "prune.stages"),
)


#: Those of them that the evaluation depends on.
EVALUATION = (
    *("evaluate", "ood", "ood_dir", "prune.post_hoc", "prune.decisions", "prune.fdr", "prune.loss_budget"),
    *("prune.curvature", "prune.curvature_options", "prune.curvature_examples", "prune.stages"),
)


def drawn_with(out: Path) -> RunConfig | None:
    """The configuration with which the draws in a directory were made; None before there are any."""
    path = RunPlaces(out).store / "zarr.json"
    if not path.is_file():
        return None
    stored = read_json(path).get("attributes", {}).get("config")
    if stored is None:
        raise ValueError(f"{path.parent} was written by an earlier release, without the configuration of its draws")
    config: RunConfig = from_json(stored, RunConfig, where=f"config in {path}")
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
    if changed := [name for name in differing(drawn, config) if name not in FREE]:
        both = "; ".join(f"{name} is {now[name]!r}, and was {made[name]!r}" for name in changed)
        raise ValueError(f"{RunPlaces(out).config} is not the configuration of the draws beside it: {both}")


#: Settings that are texts NAME=VALUE, and for each the kind of choice whose options they are, and where its name is.
OPTIONS = {
    "data.options": ("data set", "data.name"),
    "model.options": ("network", "model.name"),
    "likelihood_options": ("likelihood", "likelihood"),
    "prior.options": ("prior", "prior.family"),
    "sampler.options": ("sampler", "sampler.name"),
    "prune.curvature_options": ("curvature", "prune.curvature"),
}


def differing(first: RunConfig, second: RunConfig) -> list[str]:
    """The settings in which two configurations differ, by dotted name.

    Options are compared by their values: one that is given as it is by default is no difference.
    """
    ours, theirs = _flat(to_json(first)), _flat(to_json(second))
    changed = [name for name in ours if ours[name] != theirs[name]]
    return [name for name in changed if name not in OPTIONS or _values(name, ours) != _values(name, theirs)]


def _values(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the options under this name say, with the defaults of those that are not given."""
    kind, chosen = OPTIONS[name]
    return {**choices.defaults(kind, settings[chosen]), **choices.options(settings[name], name)}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def load_averages(places: RunPlaces, chain: int) -> dict[str, Any]:
    """What is kept of a chain: `inclusion` and `moments` of its draws, by layer, what criteria `observed`, the `prior`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are none yet, or the file is damaged.
    """
    path = places.averages(chain)
    state = checkpoint.load(path if path.is_file() else places.checkpoint(chain))
    return {key: state[key] for key in ("inclusion", "moments", "observed", "prior") if key in state}


class StoredAverages(Sequence[dict[str, Any]]):
    """What is kept of every chain, as `load_averages` gives it, read whenever it is asked for.

    Parameters
    ----------
    places : RunPlaces
    chains : int
    """

    def __init__(self, places: RunPlaces, chains: int) -> None:
        self.places, self.chains = places, chains

    def __len__(self) -> int:
        return self.chains

    def __getitem__(self, chain: Any) -> Any:
        """Of one chain."""
        if not 0 <= chain < self.chains:
            raise IndexError(chain)
        return load_averages(self.places, chain)


def load_prior(run: Run, model: nn.Module, chain: int) -> Prior:
    """The prior of a chain, with the hyperparameters that it had when its draws were taken.

    Raises
    ------
    ValueError
        If the run kept none.
    """
    prior, state = run.prior(model, chain), load_averages(run.places, chain)
    if "prior" not in state:
        raise ValueError(f"{run.out} was finished by an earlier version, which kept no prior; sample it again")
    prior.load_state_dict(state["prior"])
    return prior


def keep_averages(run: Run) -> None:
    """Keep what is read of a finished run, and delete what only a resume of unfinished chains would need."""
    for chain in range(run.config.chains):
        checkpoint.save(run.places.averages(chain), load_averages(run.places, chain))
    if run.given:  # its chains can be forked later, from their ends
        return
    for stage in (*map(run.places.stage, run.stages), run.places.control):
        for path in stage.checkpoints.glob("*.safetensors*"):
            if not path.name.endswith(".damaged"):
                path.unlink()
