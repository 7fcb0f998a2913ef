"""State to a file and back, bit for bit; damaged files are refused; writes are whole or absent."""

import contextlib
import math
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lives import start_resume
from small_run import assert_same_run, new_run, small
from torch import Tensor

from sgmcmc_prune.run.main import resume
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.files import atomic_path, finite_or_null, read_json, write_json

quick = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Arbitrary bits in any type and shape, 0-d and empty ones included, some not contiguous."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    width = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (math.prod(shape) * width,), dtype=torch.uint8, generator=generator)
    tensor = (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(shape)
    return tensor.transpose(0, -1) if shape and draw(st.booleans()) else tensor


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), tensors(), st.just(-(2**200)))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Whether two trees agree in types, structure and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return bool(a == b)


@given(tree=trees)
@quick
def test_round_trip_is_exact(tree: Any, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "state.safetensors", tree)
    assert same(checkpoint.load(tmp_path / "state.safetensors"), tree)


def test_shared_expanded_and_parameter_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tree = {"base": base, "row": base[1], "column": base[:, 2], "wide": torch.ones(1).expand(5), "again": base}
    checkpoint.save(tmp_path / "c", {**tree, "parameter": torch.nn.Parameter(base), "huge": 2**20000})
    loaded = checkpoint.load(tmp_path / "c")
    assert loaded["huge"] == 2**20000  # decimal text would be refused past 4300 digits
    assert all(torch.equal(loaded[name], value) for name, value in tree.items())
    assert type(loaded["parameter"]) is Tensor
    loaded["base"].zero_()
    assert torch.equal(loaded["again"], base)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, {2}]}, r"state\['a'\]\[1\] is a set"),
        ({"a": {1.5: 1}}, r"state\['a'\] has the key 1.5, a float"),
        ({True: 1}, "has the key True, a bool"),
        ([np.float64(1)], r"state\[0\] is a float64"),
        ({"x": torch.ones(2).to_sparse()}, r"state\['x'\] is a torch.float32 tensor on cpu, torch.sparse_coo"),
    ],
)
def test_other_types_are_refused_by_place(tree: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "c", tree)
    assert not list(tmp_path.iterdir())


@given(where=st.integers(0), flip=st.integers(1, 255))
@quick
def test_a_changed_byte_never_changes_the_state_unseen(where: int, flip: int, tmp_path: Path) -> None:
    path, tree = tmp_path / "c", {"step": 12345, "w": torch.arange(6.0).reshape(2, 3), "lr": 0.1, "name": "x"}
    checkpoint.save(path, tree)
    content = bytearray(path.read_bytes())
    content[where % len(content)] ^= flip
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert same(checkpoint.load(path), tree)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "c"
    checkpoint.save(path, {"w": torch.ones(100)})
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a whole file of tensors"):
            checkpoint.load(path)
    save_file({"0": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"is not of format sgmcmc_prune.checkpoint/\d: its format is not stated"):
        checkpoint.load(path)
    save_file({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=str(path)):
        checkpoint.load(path)
    with pytest.raises(ValueError, match=str(tmp_path)):
        checkpoint.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    with atomic_path(path) as partial:
        partial.write_text("old")
    mode = path.stat().st_mode

    def fail() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    checkpoint.save(path, {"w": torch.ones(2)})
    assert path.stat().st_mode == mode


def test_the_last_few_checkpoints_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert checkpoint.load_newest(path) == (None, [])
    for step in range(5):
        checkpoint.save(path, {"step": step}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.1", "c.2"]
    assert [checkpoint.load(tmp_path / name)["step"] for name in ("c", "c.1", "c.2")] == [4, 3, 2]
    (tmp_path / "c").unlink()  # a kill between two renames
    assert checkpoint.load_newest(path) == ({"step": 3}, [])
    assert checkpoint.load(path) == {"step": 3}


def test_a_damaged_newest_is_reported_once_and_the_one_before_is_used(tmp_path: Path) -> None:
    path = tmp_path / "c"
    for step in range(4):
        checkpoint.save(path, {"step": step}, keep=4)
    for name in ("c", "c.1"):
        content = bytearray((tmp_path / name).read_bytes())
        content[-40] ^= 1
        (tmp_path / name).write_bytes(content)
    state, damaged = checkpoint.load_newest(path)
    assert state == {"step": 1}
    assert len(damaged) == 2
    assert all(line.startswith(str(path)) and "going on from the checkpoint before" in line for line in damaged)
    assert checkpoint.load_newest(path) == ({"step": 1}, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.1.damaged", "c.3", "c.damaged"]
    checkpoint.save(path, {"step": 2}, keep=2)
    assert checkpoint.load(tmp_path / "c.1") == {"step": 1}


def test_no_whole_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for name in ("c", "c.1"):
        (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"c is not a whole file.*c\.1 is not.*or delete it to begin"):
        checkpoint.load_newest(tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.1"]


def test_another_version_is_refused_and_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"step": 0})
    version = int(checkpoint.FORMAT.rpartition("/")[2])
    monkeypatch.setattr(checkpoint, "FORMAT", f"sgmcmc_prune.checkpoint/{version + 1}")
    for load in (checkpoint.load, checkpoint.load_newest):
        with pytest.raises(ValueError, match=f"c is of version {version} .* reads .*/{version + 1}: use the release"):
            load(path)
    assert path.exists()


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    config = small(**{"chains": 1, "prune.in_chain": (), "keep_weight_draws": True})
    whole, broken = (new_run(config, tmp_path / name) for name in ("whole", "broken"))
    resume(whole, progress=False)
    life = start_resume(broken)
    while len(list(broken.glob("checkpoints/chain0.safetensors*"))) < 2 and life.alive:  # both names, between renames
        time.sleep(0.01)
    life.send(signal.SIGKILL)
    life.end()
    path = broken / "checkpoints" / "chain0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    resume(broken, progress=False)
    assert_same_run(whole, broken)
    assert read_json(broken / "run.json")["damaged_checkpoints"] == ["checkpoints/chain0.safetensors.damaged"]


def test_json_has_no_nan_unless_asked(tmp_path: Path) -> None:
    path, metrics = tmp_path / "metrics.json", {"nll": math.nan, "rows": (1, 2.5, -math.inf), "name": "é"}
    with pytest.raises(ValueError, match=r"metrics\.json: .*finite_or_null"):
        write_json(path, metrics)
    with pytest.raises(TypeError, match=r"metrics\.json: .*Tensor"):
        write_json(path, {"w": torch.ones(1)})
    assert not path.exists()
    write_json(path, finite_or_null(metrics))
    assert read_json(path) == {"nll": None, "rows": [1, 2.5, None], "name": "é"}
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"metrics\.json is not a JSON file"):
        read_json(path)
