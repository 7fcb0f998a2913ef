"""`bench csr`: below which density a linear layer is faster as a sparse matrix (CSR) than with zeros in place."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune.machine import timing
from sgmcmc_prune.text_table import format_rows

#: Linear layers of LeNet and of the MLP, (inputs, outputs), and how many inputs share a pass.
LAYERS = ((84, 10), (120, 84), (400, 10), (400, 400), (784, 400))
BATCHES = (1, 128)
#: Shares of the weights that are kept, at random places.
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
#: Weights that one measurement multiplies, about: that of a small layer is many passes.
PRODUCTS = 2_000_000


class SparseLinear(nn.Module):
    """A linear layer that stores the kept weights alone: y = W x + b with W as CSR, for inference.

    Parameters
    ----------
    layer : nn.Linear
    kept : bool Tensor, shape (outputs, inputs)
    """

    def __init__(self, layer: nn.Linear, kept: Tensor) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            self.weight = (layer.weight.detach() * kept).to_sparse_csr()
        self.bias = torch.zeros(len(kept), 1) if layer.bias is None else layer.bias.detach()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        return torch.addmm(self.bias, self.weight, x.T).T


def bench_csr(rounds: int = 31, progress: bool = True) -> dict[str, Any]:
    """Measure every layer, on a CPU.

    Returns
    -------
    dict
        `machine` and `rows`: inputs and outputs of a layer, batch, `ratios`, by density the ratio of CSR's time to that
        of the same layer with zeros in place, with its 95 % interval; `pays_at`, the density at and below which all of
        these intervals lie under 1, or None.
    """
    rows = [_row(*layer, batch, rounds, progress) for layer in LAYERS for batch in BATCHES]
    return {"bench": "csr", "machine": timing.machine(), "rounds": rounds, "rows": rows}


@torch.no_grad()
def _row(inputs: int, outputs: int, batch: int, rounds: int, progress: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    layer, x = nn.Linear(inputs, outputs), torch.randn(batch, inputs, generator=generator)
    passes = max(1, PRODUCTS // (inputs * outputs * batch))
    candidates: dict[str, Callable[[], None]] = {"dense": _passes(layer, x, passes)}
    for density in DENSITIES:
        kept = torch.rand(outputs, inputs, generator=generator) < density
        candidates[f"{density:g}"] = _passes(SparseLinear(layer, kept), x, passes)
    title = f"bench csr {inputs} to {outputs}, batch {batch}"
    seconds = timing.interleaved(candidates, rounds, 2, title, progress)
    ratios = {d: timing.paired_ratio(seconds[d], seconds["dense"]) for d in candidates if d != "dense"}
    return {
        "inputs": inputs,
        "outputs": outputs,
        "batch": batch,
        "ratios": {density: vars(ratio) for density, ratio in ratios.items()},
        "pays_at": pays_at({density: ratios[f"{density:g}"].high for density in DENSITIES}),
    }


def pays_at(highest: Mapping[float, float]) -> float | None:
    """The largest density at and below which every ratio is under 1 for certain, from the ends of their intervals."""
    found = None
    for density in sorted(highest):
        if highest[density] >= 1:
            break
        found = density
    return found


def _passes(layer: nn.Module, x: Tensor, passes: int) -> Callable[[], None]:
    return timing.block(torch.no_grad()(partial(layer, x)), passes)


def table(result: dict[str, Any]) -> str:
    """The result as aligned text: ratios of CSR's time to the dense layer's, by density."""
    header = ("layer", "batch", *(f"{density:.0%}" for density in DENSITIES), "pays at")
    rows = [
        [
            f"{r['inputs']} to {r['outputs']}",
            str(r["batch"]),
            *(f"{ratio['median']:.2f}" for ratio in r["ratios"].values()),
            "-" if r["pays_at"] is None else f"{r['pays_at']:.0%}",
        ]
        for r in result["rows"]
    ]
    return format_rows(header, rows)
