"""A stored run is read by ArviZ, of the generation that this Python has: 0.23, or 1.x from Python 3.12 on."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas
import pytest
from test_inference_data import synthetic


def test_a_stored_run_is_read(tmp_path: Path) -> None:
    import arviz as az
    import xarray as xr

    synthetic(tmp_path, [20, 20])
    tree = xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr").isel(draw=slice(20))
    if int(az.__version__.split(".")[0]) >= 1:
        data = tree
    else:
        data = az.InferenceData.from_datatree(tree)
    table = az.summary(data, var_names=["weight_norm"])
    assert list(table.index) == ["weight_norm[fc1.weight]", "weight_norm[fc2.weight]"]
    assert {"ess_bulk", "r_hat"} <= set(table.columns)


@pytest.fixture(scope="module")
def posterior() -> Any:
    """A small regression with enough draws for every diagnostic."""
    import torch

    from sgmcmc_prune import ScheduleConfig, sample

    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    schedule = ScheduleConfig(burn_in=100, cycles=1, explore=0, sample=300, relax=0, draws=30)
    return sample(net, (x, x[:, 0]), likelihood="gaussian", chains=2, schedule=schedule, progress=False)


@pytest.mark.parametrize(
    "call",
    [
        *("summary", "plot_trace", "plot_rank", "plot_ess", "plot_forest", "plot_posterior", "plot_autocorr"),
        *("plot_mcse", "loo", "compare", "plot_khat", "plot_ppc", "plot_loo_pit", "rhat"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_user_calls_works(posterior: Any, call: str) -> None:
    mpl.use("Agg")
    import arviz as az
    import matplotlib.pyplot as plt

    old = int(az.__version__.split(".")[0]) < 1
    data = az.InferenceData.from_datatree(posterior.inference_data()) if old else posterior.inference_data()
    name = (
        call
        if old
        else {"plot_trace": "plot_trace_dist", "plot_posterior": "plot_dist", "plot_ppc": "plot_ppc_dist"}.get(
            call, call
        )
    )
    function = getattr(az, name)
    if call == "compare":
        pruned = posterior.prune(0.5).inference_data()
        half = az.InferenceData.from_datatree(pruned) if old else pruned
        assert sorted(function({"dense": data, "half": half})["rank"]) == [0, 1]
    elif call == "plot_khat":
        function(az.loo(data, pointwise=True))
    elif call == "plot_loo_pit" and old:
        function(data, y="y")
    elif call == "plot_ppc" and not old:
        function(data, var_names=["y"])
    elif call in ("loo", "plot_ppc", "plot_loo_pit"):
        assert function(data) is not None
    else:
        assert function(data, var_names=["weight_norm", "outputs"][: 1 if call.startswith("plot") else 2]) is not None
    plt.close("all")


def test_the_store_by_its_path(tmp_path: Path) -> None:
    """ArviZ 0.23 does not read Zarr 3 by itself, and says how it can be read, which is what the guide says."""
    import arviz as az

    synthetic(tmp_path, [20, 20])
    place = str(tmp_path / "posterior.zarr")
    if int(az.__version__.split(".")[0]) < 1:
        with pytest.raises(ImportError, match=r"xarray.open_datatree"):
            az.from_zarr(place)
    else:
        assert "weight_norm" in az.from_zarr(place)["posterior"]


@pytest.mark.filterwarnings("ignore")
def test_a_posterior_stored_before_probes_were_numbered_is_compared_as_ever(posterior: Any) -> None:
    import arviz_stats
    import xarray

    tree, half = posterior.inference_data(), posterior.prune(0.5).inference_data()
    assert half["log_likelihood"]["y"].coords["probe"].equals(tree["log_likelihood"]["y"].coords["probe"])
    groups = {name: node.to_dataset().drop_vars("probe", errors="ignore") for name, node in tree.children.items()}
    then = xarray.DataTree.from_dict(groups)
    now, before = (arviz_stats.compare({"dense": dense, "half": half}) for dense in (tree, then))
    pandas.testing.assert_frame_equal(now, before)
    assert np.isfinite(now.loc["dense", "elpd"])


@pytest.mark.filterwarnings("ignore")
def test_no_divergence_is_drawn_where_none_was(posterior: Any) -> None:
    """By integers, ArviZ would mark the first draw of every chain."""
    import arviz as az
    import xarray as xr

    store = xr.open_datatree(posterior.path / "posterior.zarr", engine="zarr")
    for tree in (store, posterior.inference_data()):
        assert tree["sample_stats"]["diverging"].dtype == bool
        assert not tree["sample_stats"]["diverging"].any()
    if int(az.__version__.split(".")[0]) < 1:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        axes = az.plot_trace(az.InferenceData.from_datatree(store), var_names=["weight_norm"])
        assert not [line for ax in axes.flat for line in ax.lines if line.get_marker() == "|"]
        plt.close("all")
