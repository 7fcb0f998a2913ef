"""`bench predict`: the posterior predictive of many draws against as many plain forward passes."""

from typing import Any

import torch

from sgmcmc_prune import models
from sgmcmc_prune.bench import measure
from sgmcmc_prune.bench.train import NETWORKS
from sgmcmc_prune.predict import posterior_predictive
from sgmcmc_prune.tables import format_rows


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
        `machine` and `rows`: network, throughput of the predictive as a share of plain passes with its 95 % interval.
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

        def predictive(model: Any = model, inputs: torch.Tensor = inputs, weights: Any = weights) -> None:
            posterior_predictive(model, weights, inputs)

        candidates = {"plain": plain, "predictive": predictive}
        seconds = measure.interleaved(candidates, rounds, 1, f"bench predict {network}", progress)
        share = measure.paired_ratio(seconds["plain"], seconds["predictive"])
        rows.append({"network": network, "draws": draws, "throughput_share": vars(share)})
    return {"bench": "predict", "machine": measure.machine(), "images": images, "rounds": rounds, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    rows = [[r["network"], str(r["draws"]), str(measure.Ratio(**r["throughput_share"]))] for r in result["rows"]]
    return format_rows(("network", "draws", "share of the throughput of plain passes [95 %]"), rows)
