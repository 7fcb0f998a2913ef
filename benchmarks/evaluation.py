"""Time and peak memory of what is done with the finished draws of a network, each measured in a process of its own.

    python benchmarks/evaluation.py [masks] [table] [export] [summary]

The averages and draws are random numbers in the form in which a run keeps them; no chain is run. `masks` are
two targets of two criteria on all chains, `table` those of 27 rows, `export` is the mean of the draws of a cycle,
`summary` is what `summary --weights` computes (36 GB of draws on disk). Memory is the peak beyond that of the process
before, with the files that are mapped into it, whose pages the system drops when others need them, and, looked at every
5 ms, without them; seconds are the processor's, on one thread.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import torch
import xarray

from sgmcmc_prune import models
from sgmcmc_prune.diagnostics import of_weights
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.inclusion import InclusionAverage, Moments
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.run.config import PruneConfig, RunConfig
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc
from sgmcmc_prune.run.directory import StoredAverages
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.weights import WeightStore, average
from sgmcmc_prune.text_table import format_rows

#: What is done, with which network, how many chains and how many draws of each.
CASES = [("masks", "resnet18", chains, 3) for chains in (1, 2, 4)]
CASES += [("table", "resnet18", 8, 3)]
CASES += [("export", "resnet18", 1, draws) for draws in (4, 16)]
CASES += [("summary", name, 8, draws) for name in ("resnet20", "resnet18") for draws in (10, 100)]


def build(name: str) -> torch.nn.Module:
    return models.build(name, (3, 32, 32), 10, seed=0)


def write(places: RunPlaces, model: torch.nn.Module, chains: int, draws: int, averages: bool) -> None:
    """What a finished run would hold."""
    store = WeightStore(places.draws)
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


FOUR = PruneConfig(targets=(0.8, 0.9), post_hoc=("inclusion_probability", "magnitude"), decisions=())
#: Five targets of five criteria, and two decisions by probabilities.
MANY = PruneConfig(
    targets=(0.8, 0.9, 0.95, 0.98, 0.99),
    post_hoc=("inclusion_probability", "expected_log_odds", "magnitude", "signal_to_noise", "random"),
    decisions=("median", "fdr"),
)


def masks(places: RunPlaces, model: torch.nn.Module, chains: int, prune: PruneConfig) -> None:
    groups = {name: GroupMap("weight", tuple(p.shape)) for name, p in prunable(model).items()}
    config = RunConfig(chains=chains, prune=prune)
    stored = StoredAverages(places, chains)
    decided_post_hoc(config, groups, stored, lambda chain, mask: torch.zeros(1, 1), asked_post_hoc(config))


def export(places: RunPlaces, draws: int) -> None:
    store = WeightStore(places.draws)
    average(store.load(0, draw) for draw in range(draws))


def summary(places: RunPlaces, model: torch.nn.Module, chains: int) -> None:
    names = xarray.Dataset(coords={"parameter": [name for name, _ in model.named_parameters()]})
    tree = xarray.DataTree.from_dict(
        {"posterior": xarray.Dataset(coords={"chain": range(chains)}), "sample_stats": names}
    )
    with patch("sgmcmc_prune.diagnostics.inference_data.load", lambda _: tree):  # no chain has filled a store
        of_weights(places.directory)


def kilobytes(of: str) -> int:
    """What the system says of this process: VmHWM, the most memory that it has had; RssAnon, without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{of}:"))


class Watch(threading.Thread):
    """Looks at the memory without mapped files until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.highest = max(self.highest, kilobytes("RssAnon"))


def measured(what: str, name: str, chains: int, draws: int, places: RunPlaces) -> dict[str, float]:
    """In this process."""
    torch.set_num_threads(1)
    model = build(name)
    before, own, began, watch = kilobytes("VmHWM"), kilobytes("RssAnon"), time.process_time(), Watch()
    watch.start()
    if what in ("masks", "table"):
        masks(places, model, chains, FOUR if what == "masks" else MANY)
    elif what == "summary":
        summary(places, model, chains)
    else:
        export(places, draws)
    seconds = time.process_time() - began
    watch.over.set()
    watch.join()
    return {
        "seconds": seconds,
        "megabytes": (kilobytes("VmHWM") - before) / 1024,
        "own": (watch.highest - own) / 1024,
    }


def main(chosen: list[str]) -> None:
    rows = []
    for what, name, chains, draws in (case for case in CASES if case[0] in chosen):
        with tempfile.TemporaryDirectory() as folder:
            write(RunPlaces(Path(folder)), build(name), chains, draws, what in ("masks", "table"))
            line = [sys.executable, __file__, what, name, str(chains), str(draws), folder]
            found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        numbers = [f"{found['seconds']:.1f}", f"{found['megabytes']:,.0f}", f"{found['own']:,.0f}"]
        rows.append([what, name, str(chains), str(draws), *numbers])
        print(rows[-1], file=sys.stderr, flush=True)
    print(format_rows(("what", "network", "chains", "draws", "seconds", "MB", "without files"), rows))


if __name__ == "__main__":
    kinds = list(dict.fromkeys(what for what, *_ in CASES))
    if set(sys.argv[1:]) <= set(kinds):
        main(sys.argv[1:] or kinds)
    else:
        what, name, chains, draws, folder = sys.argv[1:]
        print(json.dumps(measured(what, name, int(chains), int(draws), RunPlaces(Path(folder)))))
