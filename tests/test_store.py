"""Draws on disk: flushed ones survive a kill, truncated ones are redrawn alike, and ArviZ's layout opens quietly."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sgmcmc_prune.store.draws import DrawStore, Group, Variable
from sgmcmc_prune.store.weights import WeightStore, estimate_bytes, require_space

LAYERS = ["conv1.weight", "fc.weight"]
GROUPS = {
    "posterior": Group("draw", 40, {"rate": Variable(("layer",), (2,)), "weight_norm": Variable(dtype="float64")}),
    "sample_stats": Group("draw", 40, {"cycle": Variable(dtype="int32"), "lp": Variable()}),
    "training": Group("record", 100, {"loss": Variable()}),
}


def values(chain: int, index: int) -> dict[str, dict[str, Any]]:
    """The draw of a chain at an index: known numbers, in the forms callers have them."""
    rng = np.random.default_rng([chain, index])
    return {
        "posterior": {"rate": torch.from_numpy(rng.normal(size=2)), "weight_norm": rng.normal()},
        "sample_stats": {"cycle": index // 4, "lp": torch.tensor(rng.normal(), dtype=torch.bfloat16)},
        "training": {"loss": float(index)},
    }


def append(store: DrawStore, chain: int, start: int, stop: int) -> None:
    """Append draws `start` to `stop` of a chain to all groups."""
    for index in range(start, stop):
        for group, slot in values(chain, index).items():
            store.append(group, chain, index, slot)


def make(path: Path) -> DrawStore:
    """An empty store."""
    static = {"observed_data": {"y": (("probe",), np.array([3, 1]))}}
    return DrawStore.create(path, GROUPS, 2, static, {"layer": LAYERS}, {"departures": ["tempered"]})


def content(path: Path) -> dict[str, np.ndarray]:
    """Every array of a store."""
    tree = xr.open_datatree(path, engine="zarr")
    return {f"{node.path}/{name}": var.values for node in tree.subtree for name, var in node.data_vars.items()}


def test_layout_is_arviz_and_opens_without_a_warning(tmp_path: Path) -> None:
    store = make(tmp_path / "posterior.zarr")
    append(store, 0, 0, 3)
    store.flush()
    tree = xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr")
    assert tree.attrs["departures"] == ["tempered"]
    posterior = tree["posterior"]
    assert posterior["rate"].dims == ("chain", "draw", "layer")
    assert posterior["layer"].values.tolist() == LAYERS
    assert posterior["rate"].sel(layer="fc.weight", chain=1, draw=39).isnull().item()
    assert posterior["draw"].values.tolist() == list(range(40))
    assert tree["training"]["loss"].dims == ("chain", "record")
    assert {"created_at", "inference_library", "inference_library_version"} <= posterior.attrs.keys()
    np.testing.assert_array_equal(tree["sample_stats"]["cycle"][0], [0, 0, 0] + [-1] * 37)
    np.testing.assert_array_equal(tree["observed_data"]["y"], [3, 1])
    expected = values(0, 2)["posterior"]
    np.testing.assert_array_equal(posterior["rate"][0, 2], expected["rate"].float().numpy())
    assert posterior["weight_norm"][0, 2].item() == expected["weight_norm"]


def test_truncate_then_redraw_gives_the_same_store(tmp_path: Path) -> None:
    store = make(tmp_path / "straight.zarr")
    append(store, 0, 0, 30)
    append(store, 1, 0, 20)
    store.flush()
    broken = make(tmp_path / "broken.zarr")
    append(broken, 0, 0, 25)
    append(broken, 1, 0, 20)
    broken.flush()
    append(broken, 0, 25, 28)  # never flushed
    resumed = DrawStore.open(tmp_path / "broken.zarr")
    assert resumed.count("posterior", 0) == 25
    for group in GROUPS:
        resumed.truncate(group, 0, 17)
    assert np.isnan(content(tmp_path / "broken.zarr")["/posterior/rate"][0, 17:]).all()
    append(resumed, 0, 17, 30)
    resumed.flush()
    a, b = content(tmp_path / "straight.zarr"), content(tmp_path / "broken.zarr")
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_two_writers_on_different_chains(tmp_path: Path) -> None:
    make(tmp_path / "p.zarr")
    writers = [DrawStore.open(tmp_path / "p.zarr") for _ in range(2)]
    for start in (0, 5):
        for chain in (0, 1):
            append(writers[chain], chain, start, start + 5)
            writers[chain].flush()
    loss = content(tmp_path / "p.zarr")["/training/loss"]
    np.testing.assert_array_equal(loss[:, :10], [np.arange(10)] * 2)


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from test_store import DrawStore, append
store = DrawStore.open({path!r})
for start in range(0, 40, 2):
    append(store, 0, start, start + 2)
    store.flush()
    print(start + 2, flush=True)
"""


def check_counted(store: DrawStore, told: int) -> None:
    """Every counted draw of chain 0 is whole, and at least `told` are counted."""
    arrays = content(store.path)
    for group, layout in GROUPS.items():
        count = store.count(group, 0)
        assert told <= count <= 40
        for name, variable in layout.variables.items():
            slots = [torch.as_tensor(values(0, i)[group][name], dtype=torch.float64).numpy() for i in range(count)]
            expected = np.array(slots).reshape(count, *variable.shape).astype(variable.dtype)
            np.testing.assert_array_equal(arrays[f"/{group}/{name}"][0, :count], expected, err_msg=name)


def test_flushed_draws_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "p.zarr"
    make(path)
    code = CHILD.format(tests=str(Path(__file__).parent), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(4)][-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    check_counted(DrawStore.open(path), told)


@pytest.mark.parametrize("write", range(8))  # five variables and three counters
def test_a_flush_that_stops_at_any_write_loses_nothing(
    write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "p.zarr")
    append(store, 0, 0, 3)
    store.flush()
    append(store, 0, 3, 6)
    replace, calls = os.replace, itertools.count()

    def stopping(source: Path, target: Path) -> None:
        if next(calls) >= write:
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(OSError, match="no space left"):
        store.flush()
    monkeypatch.undo()
    check_counted(DrawStore.open(store.path), 3)
    store.flush()
    check_counted(DrawStore.open(store.path), 6)


def test_wrong_slots_are_refused_in_one_line(tmp_path: Path) -> None:
    store = make(tmp_path / "p.zarr")
    with pytest.raises(ValueError, match="exists already"):
        make(tmp_path / "p.zarr")
    with pytest.raises(ValueError, match=r"is not a store of draws"):
        DrawStore.open(tmp_path)
    with pytest.raises(ValueError, match="the next one is 0 of 100"):
        store.append("training", 0, 1, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"give exactly \['loss'\]"):
        store.append("training", 0, 0, {"los": 1.0})
    with pytest.raises(ValueError, match="training/loss got shape"):
        store.append("training", 0, 0, {"loss": [1.0]})
    with pytest.raises(TypeError, match="sample_stats/cycle got float64"):
        store.append("sample_stats", 0, 0, {"cycle": 0.5, "lp": 0.0})
    with pytest.raises(ValueError, match="no group 'warmup'"):
        store.append("warmup", 0, 0, {})
    with pytest.raises(ValueError, match="cannot keep 3"):
        store.truncate("training", 0, 3)
    for index in range(100):
        store.append("training", 1, index, {"loss": 0.0})
    with pytest.raises(ValueError, match="the next one is 100 of 100"):
        store.append("training", 1, 100, {"loss": 0.0})


@pytest.mark.parametrize(
    ("group", "coords", "message"),
    [
        (Group("draw", 4, {"a": Variable(("x",), (2,)), "b": Variable(("x",), (3,))}), {}, "posterior/b has 3 along x"),
        (Group("draw", 4, {"a": Variable(("x",), (2,))}), {"x": ["one"]}, "size 2 and 1 labels"),
        (Group("draw", 4, {"x": Variable(("x",), (2,))}), {"x": ["a", "b"]}, "named like a dimension"),
    ],
)
def test_contradictory_layouts_are_refused(group: Group, coords: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DrawStore.create(tmp_path / "p.zarr", {"posterior": group}, 1, {}, coords)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="use a float or signed integer"):
        Variable(dtype="uint8")


def test_import_needs_no_zarr() -> None:
    code = "import sys; sys.modules['zarr'] = sys.modules['xarray'] = None; import sgmcmc_prune.store.draws"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weight_draws(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "draws")
    assert store.count(0) == 0
    states = [{"w": torch.randn(3, 2).T, "n": torch.tensor(i)} for i in range(4)]
    for draw, state in enumerate(states):
        store.save(0, draw, state)
    store.save(10, 0, states[0])
    assert (store.count(0), store.count(1), store.count(10)) == (4, 0, 1)
    for kept, state in zip(store.draws(0), states, strict=True):
        assert all(torch.equal(kept[name], state[name]) for name in state)
    store.truncate(0, 2)
    assert (store.count(0), store.count(10)) == (2, 1)
    with pytest.raises(ValueError, match="chain 0 has 2 weight draws"):
        store.load(0, 2)
    (tmp_path / "draws" / "chain0-00001.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="is not a whole file of tensors"):
        store.load(0, 1)
    assert estimate_bytes(states[0], draws=10, chains=2) == 20 * (6 * 4 + 8)
    require_space(tmp_path / "new" / "draws", 1)
    with pytest.raises(ValueError, match=r"need 1000000000\.00 GB under .* keep fewer draws"):
        require_space(tmp_path, 10**18)
