"""`bench latency`: what a pruned network costs in milliseconds, masked, cut and exported, beside the dense one.

A mask that keeps its zeros in place saves nothing; a network whose empty nodes are cut out has less to do. The forms of
a network are called in turns, in an order that is drawn anew in every round, each a few times in a row after one call
that is not counted: it finds its weights in the caches, as a network that serves does. Single calls are timed.

A mask of single weights saves time if linear layers hold it as a sparse matrix (CSR), below a density that depends on
the layer and the batch: `bench csr`.
"""

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.bench.csr import SparseLinear
from sgmcmc_prune.bench.train import NETWORKS
from sgmcmc_prune.machine import timing
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.models.state import load_network_state
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.prunable import output_weights, prunable
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.run.chosen import chosen
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.run.export import without_noise
from sgmcmc_prune.store.program import onnx_runtime, why_no_onnx
from sgmcmc_prune.text_table import format_rows

#: Inputs in a pass.
BATCHES = (1, 128)
#: Seconds that the calls of one form in one round take, about; at least three of them are timed.
BLOCK_SECONDS = 0.01
#: Shares of the nodes of every layer that a random mask empties, where no run gives a mask.
SHARES = (0.5, 0.75)
#: Share of the single weights that the mask of the sparse form removes.
SCATTERED = 0.95
#: Of random masks and orders.
SEED = 0
#: What the exported forms are called.
EXPORTED, ONNX = "cut, torch.export", "cut, ONNX Runtime"


@dataclass(frozen=True)
class Pruned:
    """A dense network in evaluation mode, a mask, some inputs, and where they are from, in words."""

    origin: str
    dense: nn.Module
    mask: masks.Mask
    example: Tensor


@dataclass
class Form:
    """One form of a network: what is called, and how large it is."""

    call: Callable[[Tensor], Any]
    parameters: int
    multiply_adds: int | None
    seconds: list[list[float]] = field(default_factory=list)


def bench_latency(
    networks: tuple[str, ...] = ("mlp", "lenet"), rounds: int = 31, run: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Measure the forms of every network, or of a run's, on a CPU.

    Returns
    -------
    dict
        `machine`, with the number of threads, and `rows`: network, batch, form, parameters and multiply_adds (what is
        stored, and computed), milliseconds at the median and the 95th percentile of single calls, and the ratio of a
        round's median to that of the dense form with its 95 % interval; or `not_measured`, the reason.
    """
    cases = [of_run(run)] if run is not None else [random_nodes(n, share) for n in networks for share in SHARES]
    rows = [row for case in cases for batch in BATCHES for row in _rows(case, batch, rounds, progress)]
    return {"bench": "latency", "machine": timing.machine(), "rounds": rounds, "rows": rows}


def random_nodes(network: str, share: float) -> Pruned:
    """A network at its start, and a mask that empties a share of the nodes of each layer but the last."""
    shape, generator = NETWORKS[network][0], torch.Generator().manual_seed(SEED)
    dense, example = models.build(network, shape, 10, seed=SEED), torch.randn(2, *shape, generator=generator)
    outputs, mask = output_weights(dense, example), {}
    for name, p in prunable(dense).items():
        empty = torch.randperm(len(p), generator=generator)[: 0 if name in outputs else round(share * len(p))]
        mask[name] = torch.ones_like(p, dtype=torch.bool)
        mask[name][empty] = False
    return Pruned(f"{network}, {share:.0%} of the nodes", models.in_fast_layout(network, dense).eval(), mask, example)


def of_run(directory: Path) -> Pruned:
    """The network of a run that is chosen by default: in the chain, or post hoc where nothing is pruned there."""
    run = open_run(directory)
    choice = NetworkChoice(when="in_chain" if run.config.prune.in_chain else "post_hoc")
    found = chosen(run, directory, choice)
    mask = found.mask
    network = run.model(choice.chain).cpu()
    load_network_state(network, found.mean())
    plain, _ = without_noise(network, run)
    if plain is not network:
        mask = {name.removeprefix("network."): kept for name, kept in mask.items()}
    return Pruned(found.origin, plain.eval(), mask, run.data.train[0][:2].cpu())


def _rows(case: Pruned, batch: int, rounds: int, progress: bool) -> list[dict[str, Any]]:
    inputs = case.example.repeat_interleave(-(-batch // len(case.example)), 0)[:batch].contiguous()
    labels = {"network": case.origin, "batch": batch}
    forms, missing = _forms(case, inputs)
    _measure(forms, inputs, rounds, f"bench latency {case.origin}, batch {batch}", progress)
    dense = [float(np.median(calls)) for calls in forms["dense"].seconds]
    rows = []
    for name, form in forms.items():
        calls = 1e3 * np.concatenate(form.seconds)
        ratio = timing.paired_ratio([float(np.median(c)) for c in form.seconds], dense)
        times = {"milliseconds": float(np.median(calls)), "milliseconds_p95": float(np.quantile(calls, 0.95))}
        size = {"parameters": form.parameters, "multiply_adds": form.multiply_adds}
        rows.append({**labels, "form": name, **size, **times, "ratio_to_dense": vars(ratio)})
    return rows + [{**labels, "form": name, "not_measured": why} for name, why in missing.items()]


def _forms(case: Pruned, inputs: Tensor) -> tuple[dict[str, Form], dict[str, str]]:
    """The forms of a network by name, and why others are missing."""
    dense, example = case.dense, case.example
    masked = copy.deepcopy(dense)
    masks.apply(case.mask, dict(masked.named_parameters()))
    forms = {name: _form(net, example) for name, net in (("dense", dense), ("masked", masked))}
    missing: dict[str, str] = {}
    sparse, kept = _scattered(dense)
    if kept:
        stored = num_parameters(dense) - sum(int((~m).sum()) for m in kept.values())
        forms[f"{SCATTERED:.0%} of single weights, CSR"] = Form(sparse, stored, multiply_adds(dense, example, kept))
    try:
        small = shrink(dense, case.mask, example).model.eval()
    except ValueError as error:
        return forms, {"cut": str(error)}
    forms["cut"] = _form(small, example)
    for name, export in ((EXPORTED, _exported), (ONNX, _in_onnx_runtime)):
        call, why = export(small, inputs)
        if call is None:
            missing[name] = why
        else:
            forms[name] = Form(call, forms["cut"].parameters, forms["cut"].multiply_adds)
    return forms, missing


def _form(network: nn.Module, example: Tensor) -> Form:
    return Form(network, num_parameters(network), multiply_adds(network, example))


def _scattered(dense: nn.Module) -> tuple[nn.Module, masks.Mask]:
    """The network with a random mask of single weights, and linear layers that hold what is left as CSR; that mask."""
    generator, network, mask = torch.Generator().manual_seed(SEED), copy.deepcopy(dense), {}
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and name:
            mask[f"{name}.weight"] = torch.rand(layer.weight.shape, generator=generator) >= SCATTERED
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, SparseLinear(layer, mask[f"{name}.weight"]))
    return network, mask


def _exported(small: nn.Module, inputs: Tensor) -> tuple[Callable[[Tensor], Any] | None, str]:
    """The network as `torch.export` has it; or None, and why not."""
    try:
        return torch.export.export(small, (inputs,)).module(), ""
    except Exception as error:  # torch.export refuses what it cannot trace with errors of many kinds
        return None, f"torch.export: {str(error).splitlines()[0]}"


def _in_onnx_runtime(small: nn.Module, inputs: Tensor) -> tuple[Callable[[Tensor], Any] | None, str]:
    """The network in ONNX Runtime, with as many threads as torch has; or None, and why not."""
    if absent := why_no_onnx():
        return None, absent
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(small, (inputs,), str(path), dynamo=True, verbose=False)
        except Exception as error:  # as torch.export, and for operations that ONNX has not
            return None, f"torch.onnx: {str(error).splitlines()[0]}"
        return onnx_runtime(path)[0], ""


@torch.no_grad()
def _measure(forms: dict[str, Form], inputs: Tensor, rounds: int, title: str, progress: bool) -> None:
    """Fill in the seconds of single calls, by round."""
    began = time.perf_counter()
    for _ in range(3):
        forms["dense"].call(inputs)
    calls = max(3, round(BLOCK_SECONDS / (time.perf_counter() - began) * 3))
    candidates = {name: partial(_call, form, inputs, calls) for name, form in forms.items()}
    timing.interleaved(candidates, rounds, 2, title, progress, order=random.Random(SEED))
    for form in forms.values():
        del form.seconds[:-rounds]  # those of the warm-up


def _call(form: Form, inputs: Tensor, calls: int) -> None:
    """One call that is not counted, and so many that are."""
    form.call(inputs)
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        form.call(inputs)
        seconds.append(time.perf_counter() - began)
    form.seconds.append(seconds)


def table(result: dict[str, Any]) -> str:
    """The result as aligned text, and under it what was not measured, and why."""
    header = ("network", "batch", "form", "parameters", "multiply-adds", "ms", "ms, p95", "time / dense [95 %]")
    measured = [row for row in result["rows"] if "not_measured" not in row]
    missing = [f"{r['network']}, {r['form']}: {r['not_measured']}" for r in result["rows"] if "not_measured" in r]
    rows = [[r["network"], str(r["batch"]), r["form"], *_cells(r)] for r in measured]
    return "\n".join([format_rows(header, rows), *dict.fromkeys(missing)])


def _cells(row: dict[str, Any]) -> list[str]:
    multiplied = row["multiply_adds"]
    return [
        f"{row['parameters']:,}",
        "-" if multiplied is None else f"{multiplied:,}",
        f"{row['milliseconds']:.3f}",
        f"{row['milliseconds_p95']:.3f}",
        str(timing.Ratio(**row["ratio_to_dense"])),
    ]
