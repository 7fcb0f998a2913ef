"""A stored run is read by both generations of ArviZ, 0.23 and 1.x; neither is needed by the library."""

import importlib.util
from pathlib import Path

import pytest
from test_inference_data import synthetic

if importlib.util.find_spec("arviz") is None:
    pytest.skip("arviz is not installed", allow_module_level=True)


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
