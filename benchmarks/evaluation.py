"""Time and peak memory of what is done with the finished draws of ResNet-18, each measured in a process of its own.

    python benchmarks/evaluation.py

The averages and draws are random numbers in the form in which a run keeps them; no chain is run. `masks` are
two targets of two criteria on all chains, `export` is the mean of the draws of a cycle. Memory is the peak beyond that
of the process before; seconds are the processor's, on one thread.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sgmcmc_prune import models
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.inclusion import InclusionAverage, Moments
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.run.config import PruneConfig, RunConfig
from sgmcmc_prune.run.decide import decided_post_hoc
from sgmcmc_prune.run.directory import StoredAverages
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.weights import WeightStore, average
from sgmcmc_prune.text_table import format_rows

#: What is done, with how many chains and how many draws of each.
CASES = [("masks", 1, 3), ("masks", 2, 3), ("masks", 4, 3), ("export", 1, 4), ("export", 1, 16)]


def network() -> torch.nn.Module:
    return models.build("resnet18", (3, 32, 32), 10, seed=0)


def write(places: RunPlaces, chains: int, draws: int, averages: bool) -> None:
    """What a finished run would hold."""
    model, store = network(), WeightStore(places.draws)
    for chain in range(chains):
        torch.manual_seed(chain)
        inclusion = {name: InclusionAverage() for name in prunable(model)}
        moments = {name: Moments() for name in prunable(model)}
        for draw in range(draws):
            for name, p in model.named_parameters():
                p.data = 0.05 * torch.randn_like(p)
                if averages and name in moments:
                    moments[name].update(p.data)
                    inclusion[name].update(p.data.flatten().abs() * 100 - 3)
            if not averages:
                store.save(chain, draw, network_state(model))
        if averages:
            state = {"inclusion": inclusion, "moments": moments}
            saved = {key: {name: a.state_dict() for name, a in each.items()} for key, each in state.items()}
            checkpoint.save(places.averages(chain), saved)


def masks(places: RunPlaces, chains: int) -> None:
    groups = {name: GroupMap("weight", tuple(p.shape)) for name, p in prunable(network()).items()}
    prune = PruneConfig(targets=(0.8, 0.9), post_hoc=("inclusion_probability", "magnitude"), decisions=())
    config = RunConfig(chains=chains, prune=prune)
    for _ in decided_post_hoc(config, groups, StoredAverages(places, chains), lambda chain, mask: torch.zeros(1, 1)):
        pass


def export(places: RunPlaces, draws: int) -> None:
    store = WeightStore(places.draws)
    average(store.load(0, draw) for draw in range(draws))


def peak() -> int:
    """The most memory that this process has held, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measured(what: str, chains: int, draws: int, places: RunPlaces) -> dict[str, float]:
    """In this process."""
    torch.set_num_threads(1)
    network()
    before, began = peak(), time.process_time()
    if what == "masks":
        masks(places, chains)
    else:
        export(places, draws)
    seconds, after = time.process_time() - began, peak()
    return {"seconds": seconds, "megabytes": (after - before) / 1024}


def main() -> None:
    rows = []
    for what, chains, draws in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write(RunPlaces(Path(folder)), chains, draws, what == "masks")
            line = [sys.executable, __file__, what, str(chains), str(draws), folder]
            found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        rows.append([what, str(chains), str(draws), f"{found['seconds']:.1f}", f"{found['megabytes']:,.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    print(format_rows(("what", "chains", "draws", "seconds", "MB"), rows))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        what, chains, draws, folder = sys.argv[1:]
        print(json.dumps(measured(what, int(chains), int(draws), RunPlaces(Path(folder)))))
