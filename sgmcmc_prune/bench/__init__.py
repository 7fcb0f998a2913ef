"""Benchmarks a user can run: ratios measured side by side in one run, printed as a table and written as JSON."""

from pathlib import Path
from typing import Any


def run(
    what: str, network: str | None, rounds: int, device: str, of_run: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Run one benchmark; return its result and its table.

    Raises
    ------
    ValueError
        If the benchmark does not know the network or the device, takes no run, or there is no round.
    """
    from sgmcmc_prune.bench import chains, csr, data, latency, loop, predict, smaller, step, store, train

    of_its_own = {"step": step.NETWORKS, "data": data.NETWORKS, "chains": chains.BLOCK, "loop": loop.NETWORKS}
    known = of_its_own.get(what, train.NETWORKS)
    if rounds < 6:
        raise ValueError(f"rounds is {rounds}; a 95 % interval for a median takes at least 6")
    if network is not None and network not in known:
        raise ValueError(f"bench {what} has no network {network!r}; choose {' or '.join(known)}")
    if what in ("latency", "csr", "smaller") and device != "cpu":
        raise ValueError(f"bench {what} measures on a CPU alone, not on {device}")
    if of_run is not None and (what != "latency" or network is not None):
        raise ValueError("a run is for bench latency, which then takes no network beside it")
    if what == "step":
        result = step.bench_step(network or "resnet18", rounds, device)
        return result, step.table(result)
    if what == "data":
        result = data.bench_data(network or "resnet20", rounds, device)
        return result, data.table(result)
    if what == "loop":
        result = loop.bench_loop((network,) if network else tuple(loop.NETWORKS), rounds, device=device)
        return result, loop.table(result)
    if what == "store":
        result = store.bench_store()
        return result, store.table(result)
    if what == "csr":
        result = csr.bench_csr(rounds)
        return result, csr.table(result)
    networks = (network,) if network else ("mlp", "lenet")
    if what == "train":
        result = train.bench_train(networks, rounds, device=device)
        return result, train.table(result)
    if what == "latency":
        result = latency.bench_latency(networks, rounds, of_run)
        return result, latency.table(result)
    if what == "smaller":
        result = smaller.bench_smaller(networks, rounds)
        return result, smaller.table(result)
    if what == "chains":
        result = chains.bench_chains(networks, rounds=rounds, device=device)
        return result, chains.table(result)
    result = predict.bench_predict(networks, rounds=rounds, device=device)
    return result, predict.table(result)
