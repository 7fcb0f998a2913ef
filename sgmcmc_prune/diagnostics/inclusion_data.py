"""Inclusion probabilities of a run as an ArviZ `DataTree`, a draw being the average over one cycle."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces

if TYPE_CHECKING:
    import xarray


def inclusion_data(run_dir: str | Path, layers: Sequence[str] | None = None) -> "xarray.DataTree":
    """Inclusion probabilities of every group, by chain and cycle, as ArviZ reads posteriors.

    Probabilities belong to one chain: hidden units permute between chains, so R-hat compares the shares that are
    included (`share_included`), and not single groups.

    Parameters
    ----------
    run_dir : str or Path
        A run directory.
    layers : sequence of str, optional
        By default all that are sparse.

    Returns
    -------
    xarray.DataTree
        Group `posterior`: `share_included`, the mean over the groups of each layer, dimensions (chain, draw, layer),
        and one variable for each layer by its name, dimensions (chain, draw, LAYER_group). The attribute `quantity`
        says whether they are posterior inclusion probabilities or responsibilities of mode em.

    Raises
    ------
    ValueError
        If the run has no inclusion probabilities, no cycle that all chains have finished, or no such layer.

    Examples
    --------
    >>> tree = inclusion_data("runs/demo-seed0")  # doctest: +SKIP
    >>> arviz_stats.summary(tree, var_names=["share_included"])  # doctest: +SKIP
    """
    import xarray

    places = RunPlaces(Path(run_dir))
    if not places.config.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no config.json")
    config: dict[str, Any] = read_json(places.config)
    cycles = 0
    while all(places.inclusion(chain, cycles + 1).is_file() for chain in range(config["chains"])):
        cycles += 1
    if not cycles:
        raise ValueError(
            f"{run_dir} has no inclusion probabilities of a cycle that all chains have finished: let the run go on, if "
            f"its prior has indicators (it is {config['prior']['family']})"
        )
    found = [
        [checkpoint.load(places.inclusion(chain, cycle + 1)) for cycle in range(cycles)]
        for chain in range(config["chains"])
    ]
    known = list(found[0][0])
    chosen = known if layers is None else list(layers)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"{run_dir} has no sparse layer {', '.join(unknown)}; it has {', '.join(known)}")
    values = {name: np.array([[cycle[name].numpy() for cycle in chain] for chain in found]) for name in chosen}
    variables = {name: (("chain", "draw", f"{name}_group"), value) for name, value in values.items()}
    share = np.stack([value.mean(2) for value in values.values()], axis=2)
    quantity = "em_responsibility" if config["prior"]["mode"] == "em" else "inclusion_probability"
    posterior = xarray.Dataset(
        {"share_included": (("chain", "draw", "layer"), share), **variables},
        coords={"chain": np.arange(len(found)), "draw": np.arange(cycles), "layer": chosen},
        attrs={"quantity": quantity, "draw": "average over one cycle"},
    )
    return xarray.DataTree.from_dict({"posterior": posterior})
