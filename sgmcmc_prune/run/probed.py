"""What masked draws say of a run's probes, as ArviZ reads it: beside the dense draws' own record, for comparisons."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sgmcmc_prune.chains.record import at_probes, dims_at_probes
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.run.evaluate import Predictor
from sgmcmc_prune.run.run import Run

if TYPE_CHECKING:
    import xarray


@torch.no_grad()
def probed(
    run: Run, chains: Sequence[Iterable[dict[str, torch.Tensor]]], chain_masks: Sequence[Mask]
) -> "xarray.DataTree":
    """Pass the probes through every draw of every chain, under the chain's mask.

    Parameters
    ----------
    run : Run
        Its probes are the same examples for the dense draws and for every mask.
    chains : sequence of iterables of dict
        The weight draws of each chain, in equal numbers.
    chain_masks : sequence of dict
        By chain; True is kept.

    Returns
    -------
    xarray.DataTree
        Groups `posterior` (the network's outputs), `log_likelihood`, `posterior_predictive` and `observed_data`.
    """
    import xarray

    predictor, targets, likelihood = Predictor(run), run.probes.labels, run.likelihood
    found = [
        [
            at_probes(likelihood, outputs, targets, seeded_generator("pruned predictive", run.config.seed, chain, draw))
            for draw, (outputs,) in enumerate(predictor.outputs(draws, mask, [run.probes.inputs]))
        ]
        for chain, (draws, mask) in enumerate(zip(chains, chain_masks, strict=True))
    ]
    dims = dims_at_probes(likelihood, targets)
    groups = {
        group: xarray.Dataset(
            {
                name: (
                    ("chain", "draw", *(("probe",) if group == "log_likelihood" else dims[name])),
                    np.stack([np.stack([draw[group][name] for draw in chain]) for chain in found]),
                )
                for name in found[0][0][group]
            }
        )
        for group in found[0][0]
    }
    groups["observed_data"] = xarray.Dataset({"y": (dims["y"], targets.cpu().numpy())})
    labelled = {
        name: data.assign_coords({dim: list(labels) for dim, labels in run.probe_coords.items() if dim in data.dims})
        for name, data in groups.items()
    }
    return xarray.DataTree.from_dict(labelled)
