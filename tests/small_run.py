"""A run of a few seconds, and its comparison with another run to the bit."""

import json
from pathlib import Path

import xarray as xr
from safetensors import safe_open

from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json


def small(**changes: object) -> RunConfig:
    """A run of a few seconds: 500 training images, short phases, a small checkpoint interval."""
    settings: dict[str, object] = {
        "data.validation": 6500,
        "data.batch_size": 50,
        "model.name": "linear",
        "prior.spike_variance": 1e-3,
        "schedule.burn_in": 6.0,
        "schedule.cycles": 2,
        "schedule.explore": 1.0,
        "schedule.sample": 2.0,
        "schedule.draws": 4,
        "prune.targets": (0.5, 0.8),
        "prune.in_chain": ("inclusion_probability", "magnitude", "random"),
        "prune.explore": 2.0,
        "prune.sample": 1.0,
        "prune.draws": 2,
        "probes": 8,
        "checkpoint_seconds": 0.2,
        "em.every": 5,
        "execution": "loop",
    }
    config: RunConfig = replace(PRESETS["demo"](), **{**settings, **changes})
    return config


def new_run(config: RunConfig, out: Path) -> Path:
    """A run directory that holds nothing but its configuration: `resume` begins it."""
    out.mkdir()
    (out / "config.json").write_text(json.dumps(to_json(config)))
    return out


def assert_same_run(a: Path, b: Path) -> None:
    """Everything equal to the bit, time stamps exempt."""
    assert json.loads((a / "metrics.json").read_text()) == json.loads((b / "metrics.json").read_text())
    for path in sorted(a.rglob("*.safetensors")):
        left, right = (_content(p) for p in (path, b / path.relative_to(a)))
        assert left == right, path
    for store in sorted(a.rglob("posterior.zarr")):
        left, right = (xr.open_datatree(p, engine="zarr") for p in (store, b / store.relative_to(a)))
        for name, node in left.children.items():
            assert node.to_dataset().drop_attrs().identical(right[name].to_dataset().drop_attrs()), name


def _content(path: Path) -> tuple[object, dict[str, bytes]]:
    """Metadata and the bytes of every tensor of a safetensors file (the order of its header is not fixed)."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
        return file.metadata(), tensors
