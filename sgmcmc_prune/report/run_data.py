"""A run directory opened for reading, as far as it has been written; nothing else is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.decide import inclusion_probabilities
from sgmcmc_prune.run.directory import load_averages, load_config
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.damage import damage_named
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces

Inclusion = dict[str, Tensor]


class Stage:
    """The store of the dense chains, or of one in-chain fork.

    Parameters
    ----------
    name : str
        "dense", or the fork's criterion.
    path : Path
        Its `posterior.zarr`.
    """

    def __init__(self, name: str, path: Path) -> None:
        import xarray

        self.name, self.path = name, path
        with damage_named(path):
            self.tree: Any = xarray.open_datatree(path, engine="zarr")
            self.chains = int(self.tree["progress"].sizes["chain"])

    def values(self, group: str, variable: str, chain: int) -> np.ndarray:
        """One chain's values, without the slots that are not written yet."""
        count = int(self.tree["progress"][group][chain])
        return np.asarray(self.tree[group][variable][chain, :count].values)

    @property
    def layers(self) -> list[str]:
        """Names of the layers as pictures show them: without the common ending, the middle of a long one left out."""
        return [shortened(str(name).removesuffix(".weight")) for name in self.tree["posterior"]["layer"].values]

    @property
    def draws(self) -> list[int]:
        """Draws written by each chain."""
        return [int(n) for n in self.tree["progress"]["sample_stats"].values]


@dataclass(frozen=True)
class RunData:
    """What a run directory holds.

    Parameters
    ----------
    path : Path
    config : RunConfig
    info : dict
        `run.json`; empty if there is none.
    metrics, reliability : dict or None
        `metrics.json` and `reliability.json`; None while there are none.
    stages : list of Stage
        The dense chains first, then forks; empty before the first store was made.
    """

    path: Path
    config: RunConfig
    info: dict[str, Any]
    metrics: dict[str, Any] | None
    reliability: dict[str, Any] | None
    stages: list[Stage]

    @classmethod
    def open(cls, path: Path) -> "RunData":
        """Open a run directory; ValueError if it is none."""
        config = load_config(path)
        run = RunPlaces(path)
        stores = {name or "dense": run.stage(name).store for name in (None, *config.prune.in_chain)}
        stages = [Stage(name, store) for name, store in stores.items() if store.is_dir()]
        info = _json(run.info) or {}
        return cls(path, config, info, _complete(_json(run.metrics), info), _json(run.reliability), stages)

    @property
    def dense(self) -> Stage | None:
        """The dense chains, once they have a store."""
        return self.stages[0] if self.stages and self.stages[0].name == "dense" else None

    @property
    def finished(self) -> bool:
        """Whether every stage and the evaluation are done."""
        return self.info.get("status") == "finished" and self.metrics is not None

    def inclusion(self) -> dict[int, Inclusion]:
        """Mean inclusion of every group over the draws so far, by chain and layer; chains without draws are absent."""
        found = {}
        for chain in range(self.config.chains):
            state = self._state(chain)
            if state["inclusion"] and all(a["count"] for a in state["inclusion"].values()):
                found[chain] = inclusion_probabilities(state)
        return found

    def cycle_inclusion(self, chain: int) -> list[Inclusion]:
        """The same, averaged over the draws of each finished cycle."""
        cycles = range(1, self.config.schedule.cycles + 1)
        paths = [RunPlaces(self.path).inclusion(chain, cycle) for cycle in cycles]
        return [checkpoint.load(path) for path in paths if path.is_file()]

    def groups(self, chain: int) -> dict[str, GroupMap]:
        """Which weights share an indicator, for every layer with inclusion probabilities."""
        state, kind = self._state(chain), self.config.prior.group
        shapes = {name: tuple(state["moments"][name]["mean"].shape) for name in state["inclusion"]}
        if kind == "head":
            counts = {name: len(included) for name, included in inclusion_probabilities(state).items()}
            return {name: GroupMap.heads(shape, counts[name]) for name, shape in shapes.items()}
        return {name: GroupMap(kind, shape) for name, shape in shapes.items()}

    def _state(self, chain: int) -> Mapping[str, Any]:
        try:
            return load_averages(RunPlaces(self.path), chain)
        except FileNotFoundError:
            return {"inclusion": {}, "moments": {}}


def _complete(metrics: dict[str, Any] | None, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Add to the metrics of an earlier release what only `run.json` knew: examples of the split, departures."""
    if metrics is None:
        return None
    known = {"examples": info.get("data", {}).get(metrics["split"])}
    if "departures" in info:
        known["departures"] = len(info["departures"])
    return {**known, **metrics}


def _json(path: Path) -> dict[str, Any] | None:
    value: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return value


def shortened(name: str) -> str:
    """A name of at most 40 characters, with an ellipsis for its middle."""
    return name if len(name) <= 40 else f"{name[:18]} ... {name[-17:]}"
