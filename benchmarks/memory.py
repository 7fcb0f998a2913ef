"""Memory and storage of a run's chains in bytes a parameter: counted in its files, so the same on every machine.

    sgmcmc-prune run demo --schedule.burn-in 1 --schedule.cycles 1 --out RUN && python benchmarks/memory.py RUN

A checkpoint is everything that a chain keeps between two steps. A process holds that much, and the gradient (4 bytes),
the noise of the step (4) and the activations; of several ranks that share a chain, each holds all of it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.draws import DrawStore
from sgmcmc_prune.store.places import StagePlaces
from sgmcmc_prune.text_table import format_rows


def tensor_bytes(tree: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, Mapping):
        return sum(map(tensor_bytes, tree.values()))
    return sum(map(tensor_bytes, tree)) if isinstance(tree, list | tuple) else 0


def sampler_bytes(state: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of a sampler's state by its name: momentum, mass, mask, ..."""
    found: dict[str, int] = {}
    for tensors in state["state"].values():
        for name, value in tensors.items():
            found[f"sampler: {name}"] = found.get(f"sampler: {name}", 0) + tensor_bytes(value)
    return found


def count(places: StagePlaces) -> dict[str, int]:
    """Bytes by role of chain 0 in one stage."""
    path = places.checkpoint(0)
    state = checkpoint.load(path)
    roles = {"model": tensor_bytes(state["model"]), **sampler_bytes(state["sampler"])}
    roles |= {name: tensor_bytes(state[name]) for name in ("prior", "em", "mask", "inclusion", "moments", "pruner")}
    draws = sorted(places.draws.glob("chain0-*.safetensors"))
    store = places.store
    chains, slots = len(list(places.checkpoints.glob("chain*.safetensors"))), DrawStore.open(store)
    stored = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    roles |= {"checkpoint, on disk": path.stat().st_size, "one weight draw, on disk": draws[0].stat().st_size}
    roles["store, on disk, by draw"] = stored // max(1, chains * slots.count("posterior", 0))
    return {name: number for name, number in roles.items() if number}


def main(out: Path) -> None:
    """Print one table for each stage."""
    run = open_run(out)
    model = checkpoint.load(run.places.checkpoint(0))["model"]
    parameters = sum(p.numel() for p in model.values() if p.is_floating_point())
    for stage in run.stages:
        rows = [[name, f"{n:,}", f"{n / parameters:.1f}"] for name, n in count(run.places.stage(stage)).items()]
        print(f"{stage or 'dense'}, {parameters:,} parameters and buffers")
        print(format_rows(("what", "bytes", "a parameter"), rows), end="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
