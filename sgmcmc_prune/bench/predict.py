"""`bench predict`: the posterior predictive of many draws against as many plain forward passes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sgmcmc_prune import models
from sgmcmc_prune.bench.train import NETWORKS
from sgmcmc_prune.machine import timing
from sgmcmc_prune.predictive.predict import posterior_predictive
from sgmcmc_prune.text_table import format_rows

#: Draws that share a forward pass.
AT_ONCE = (1, 8)


def bench_predict(
    networks: tuple[str, ...] = ("mlp", "lenet"),
    draws: int = 32,
    images: int = 2000,
    rounds: int = 11,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every network.

    Returns
    -------
    dict
        `machine` and `rows`: network, draws that share a pass, throughput of the predictive as a share of plain passes
        with its 95 % interval.
    """
    rows = []
    for network in networks:
        shape = NETWORKS[network][0]
        model = models.build(network, shape, 10, seed=0).to(device).eval()
        inputs = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        weights = [{k: v.clone() for k, v in model.state_dict().items()} for _ in range(draws)]

        def plain(model: Any = model, inputs: torch.Tensor = inputs) -> None:
            with torch.no_grad():
                for _ in range(draws):
                    for batch in inputs.split(1000):
                        model(batch)

        candidates: dict[str, Callable[[], Any]] = {"plain": plain}
        for at_once in AT_ONCE:
            candidates[str(at_once)] = partial(posterior_predictive, model, weights, inputs, draws_at_once=at_once)
        seconds = timing.interleaved(candidates, rounds, 1, f"bench predict {network}", progress)
        for at_once in AT_ONCE:
            share = timing.paired_ratio(seconds["plain"], seconds[str(at_once)])
            row = {"network": network, "draws": draws, "draws_at_once": at_once, "throughput_share": vars(share)}
            rows.append(row)
    return {"bench": "predict", "machine": timing.machine(), "images": images, "rounds": rounds, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    rows = [
        [r["network"], str(r["draws"]), str(r["draws_at_once"]), str(timing.Ratio(**r["throughput_share"]))]
        for r in result["rows"]
    ]
    return format_rows(("network", "draws", "at once", "share of the throughput of plain passes [95 %]"), rows)
