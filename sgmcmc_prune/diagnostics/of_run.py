"""How far the chains of a run have converged: in function space, which is judged, and weight by weight.

Hidden units permute between chains, so that one weight is another in the next chain: R-hat of single weights says how
far chains have found the same network, and is no verdict. The effective sample size of a weight belongs to one chain.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.diagnostics.ess import MIN_DRAWS_ESS, ess, rhat
from sgmcmc_prune.diagnostics.streams import MEMORY, StreamedDraws, by_block, from_files, shape_in
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.weights import WeightStore

#: What a network says of the probes: the stored variable, and its group.
FUNCTIONS = {
    "logits": "posterior",
    "outputs": "posterior",
    "probability": "posterior_predictive",
    "mean": "posterior_predictive",
}
QUANTILES = (0.05, 0.5, 0.95)
#: Of a parameter with more entries so many are looked at, at random: their 95 % quantile lies between the 94.6 %
#: and the 95.4 % ones of all entries, with a probability of 0.95.
ENTRIES = 10_000


def summarise(draws: Tensor, memory: int = MEMORY) -> dict[str, float | int | None]:
    """Summarise R-hat and ESS over all entries of one quantity.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape)
    memory : int
        Bytes of working memory.

    Returns
    -------
    dict
        `rhat_median`, `rhat_max` (None with one chain or fewer than four draws), `ess_median`, `ess_min` (bulk),
        `ess_tail_min` (None with fewer than ten draws), `entries`, how many moved in every chain and were counted, and
        `still`, how many did not.
    """
    flat = draws.flatten(2) if draws.dim() > 2 else draws.unsqueeze(2)
    counted = flat[..., moving(flat)]
    entries = counted.shape[-1]
    result: dict[str, float | int | None] = {"entries": entries, "still": flat.shape[-1] - entries}
    names = ("rhat_median", "rhat_max", "ess_median", "ess_min", "ess_tail_min")
    if not entries:
        return {**dict.fromkeys(names), **result}
    r = rhat(counted, memory=memory)
    bulk, tail = (_long_enough(counted, ess(counted, method, memory)) for method in ("bulk", "tail"))
    values = (r.quantile(0.5), r.max(), bulk.quantile(0.5), bulk.min(), tail.min())
    numbers = {name: float(v) if v.isfinite() else None for name, v in zip(names, values, strict=True)}
    return {**numbers, **result}


def in_function_space(run_dir: str | Path, memory: int = MEMORY) -> dict[str, dict[str, float | int | None]]:
    """Judge a run by its function: `summarise` over the outputs of the network on the probe examples.

    Parameters
    ----------
    run_dir : str or Path
        A run directory, or that of one of its forks.
    memory : int
        Bytes of working memory.

    Returns
    -------
    dict
        The outputs of the network ("logits" of classes, otherwise "outputs") and the expected targets
        ("probability", or "mean"), each over all stored probes.

    Raises
    ------
    ValueError
        When there is no run.
    """
    from sgmcmc_prune.diagnostics.inference_data import load

    tree = load(run_dir)
    return {
        name: summarise(torch.from_numpy(tree[group][name].values), memory)
        for name, group in FUNCTIONS.items()
        if name in tree[group]
    }


def of_weights(
    run_dir: str | Path, memory: int = MEMORY, progress: bool = False, entries: int | None = ENTRIES
) -> dict[str, dict[str, Any]]:
    """R-hat and ESS of the weights of a run whose draws were kept, reading the files block by block.

    Parameters
    ----------
    run_dir : str or Path
        A run directory, or that of one of its forks.
    memory : int
        Bytes of working memory.
    progress : bool
        Show a progress bar for each layer.
    entries : int, optional
        Look at so many entries of each parameter at most, the same ones of a name and size everywhere; None: at all.

    Returns
    -------
    dict
        By parameter: `size`; `seen`, the entries that were looked at; `moving`, those of them that move in every chain
        (a masked weight does not) and are counted; `rhat`, across chains; `ess`, bulk, of each chain on its own: lists
        of the 5 %, 50 % and 95 % quantiles over entries (and chains). NaN where not defined.

    Raises
    ------
    ValueError
        When there is no run, or it has no weight draws.
    """
    from sgmcmc_prune.diagnostics.inference_data import load

    tree = load(run_dir)
    chains = tree["posterior"].sizes["chain"]
    files = [sorted(RunPlaces(Path(run_dir)).draws.glob(f"chain{c}-*.safetensors")) for c in range(chains)]
    length = min(len(chain) for chain in files)
    if length == 0:
        raise ValueError(f"{run_dir} has no weight draws of every chain: its directory draws/ lacks them")
    for chain in range(chains):  # the blocks are read past the checksums
        if bad := WeightStore(RunPlaces(Path(run_dir)).draws).first_damaged(chain, length):
            raise ValueError(bad[1])
    names = [str(name) for name in tree["sample_stats"].to_dataset()["parameter"].values]
    # One parameter after the other: each maps every file, and a process may have 65,530 maps.
    paths = [chain[:length] for chain in files]
    sizes = {name: math.prod(shape_in(paths[0][0], name)) for name in names}
    some = {name: _some(name, size, entries) for name, size in sizes.items()}
    return {
        name: {"size": sizes[name], **_of_parameter(from_files(paths, name, some[name]), memory, progress)}
        for name in names
    }


def _some(name: str, size: int, entries: int | None) -> Tensor | None:
    """Entries of a parameter at random, in rising order; None where all are looked at."""
    if entries is None or size <= entries:
        return None
    return torch.randperm(size, generator=seeded_generator(f"entries of {name}", size))[:entries].sort().values


def _of_parameter(draws: StreamedDraws, memory: int, progress: bool) -> dict[str, Any]:
    chains = draws.shape[0]
    rows = by_block(draws, _rhat_and_ess, memory, progress).reshape(chains + 2, -1).numpy()
    counted = rows[0] > 0
    return {
        "seen": len(counted),
        "moving": int(counted.sum()),
        "rhat": _quantiles(rows[1, counted]),
        "ess": _quantiles(rows[2:, counted]),
    }


def _rhat_and_ess(x: Tensor) -> Tensor:
    """Rows over a block (parameters, chains, draws): whether it moves, R-hat, and the ESS of each chain."""
    draws = x.permute(1, 2, 0)
    each = [_long_enough(draws, ess(chain.unsqueeze(0))) for chain in draws]
    return torch.stack([moving(draws).double(), rhat(draws), *each])


def moving(draws: Tensor) -> Tensor:
    """Tell which entries of draws (chains, draws, entries) are finite and move in every chain: (entries,), boolean."""
    return draws.isfinite().all(1).all(0) & (draws.amax(1) > draws.amin(1)).all(0)


def _long_enough(draws: Tensor, sizes: Tensor) -> Tensor:
    """NaN where chains are too short for an effective sample size to mean anything."""
    return sizes if draws.shape[1] >= MIN_DRAWS_ESS else torch.full_like(sizes, torch.nan)


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, QUANTILES).tolist() if values.size else [float("nan")] * len(QUANTILES)
