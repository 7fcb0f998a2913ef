"""What a store of draws holds, and how it lies on disk: Zarr v3 in ArviZ's layout."""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sgmcmc_prune import __version__
from sgmcmc_prune.store.files import sync

CHUNK_BYTES = 2**20
CHUNK_SLOTS = 1024
Static = Mapping[str, Mapping[str, tuple[tuple[str, ...], Any]]]


@dataclass(frozen=True)
class Variable:
    """One quantity recorded at every slot.

    Parameters
    ----------
    dims : tuple of str
        Names of its own dimensions, without `chain` and the sample dimension.
    shape : tuple of int
        Their sizes.
    dtype : str
        A NumPy float or signed integer type, or "bool". Slots not written hold NaN, -1 in integers, and False in flags.
    """

    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check that the sizes match the names and that the type can mark an empty slot."""
        if len(self.dims) != len(self.shape):
            raise ValueError(f"variable has dimensions {self.dims} and shape {self.shape}: give one size per dimension")
        if np.dtype(self.dtype).kind not in "fib":
            raise ValueError(f"variable has dtype {self.dtype}: use a float or signed integer type, or bool")

    @property
    def fill(self) -> float | int:
        """The value of a slot not written: NaN, -1 in integers, or False."""
        return {"f": float("nan"), "i": -1, "b": False}[np.dtype(self.dtype).kind]


@dataclass(frozen=True)
class Group:
    """Variables recorded together, slot by slot.

    Parameters
    ----------
    sample_dim : "draw" or "record"
        The dimension along which slots are appended.
    length : int
        How many slots each chain has.
    variables : mapping of str to Variable
        By name; a name must differ from every dimension's.
    """

    sample_dim: Literal["draw", "record"]
    length: int
    variables: Mapping[str, Variable]


def create_store(
    path: Path,
    groups: Mapping[str, Group],
    chains: int,
    static: Static,
    coords: Mapping[str, Sequence[Any]],
    attrs: Mapping[str, Any],
) -> None:
    """Write an empty store; it appears under `path` whole or not at all.

    Parameters
    ----------
    path : Path
        Must not exist.
    groups : mapping of str to Group
    chains : int
    static : mapping of group name to mapping of variable name to (dims, array)
        Groups without sample dimensions.
    coords : mapping of str to sequence
        Labels (strings or integers) of dimensions, written into every group that has the dimension.
    attrs : mapping
        JSON-able attributes of the root.

    Raises
    ------
    ValueError
        When `path` exists, or a name or size contradicts another.
    """
    import zarr

    if path.exists():
        raise ValueError(f"{path} exists already: open it, or choose another directory")
    staging = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        root = zarr.create_group(zarr.storage.LocalStore(staging), attributes=dict(attrs))
        for name, group in groups.items():
            _create_sampled(_create_group(root, name), name, group, chains, coords)
        for name, arrays in static.items():
            _create_static(_create_group(root, name), name, arrays, coords)
        _create_progress(root, groups, chains)
        with warnings.catch_warnings():  # xarray warns on opening without consolidated metadata, Zarr on writing it
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(root.store)
        for directory, _, names in os.walk(staging):  # to disk before the name is
            for entry in [directory, *(os.path.join(directory, name) for name in names)]:
                sync(Path(entry))
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync(path.parent)


def _create_group(root: Any, name: str) -> Any:
    """Create a group with the attributes ArviZ expects."""
    attributes = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "sgmcmc_prune",
        "inference_library_version": __version__,
    }
    return root.create_group(name, attributes=attributes)


def _create_sampled(node: Any, name: str, group: Group, chains: int, coords: Mapping[str, Sequence[Any]]) -> None:
    """Allocate the arrays `(chain, slot, ...)` of one group, all slots empty."""
    sizes = {"chain": chains, group.sample_dim: group.length}
    for key, variable in group.variables.items():
        _check_sizes(f"{name}/{key}", variable.dims, variable.shape, sizes)
        slot_bytes = max(1, int(np.prod(variable.shape)) * np.dtype(variable.dtype).itemsize)
        slots = max(1, min(group.length, CHUNK_SLOTS, CHUNK_BYTES // slot_bytes))
        node.create_array(
            key,
            shape=(chains, group.length, *variable.shape),
            chunks=(1, slots, *(max(1, size) for size in variable.shape)),
            dtype=variable.dtype,
            compressors=_compressors(),
            fill_value=variable.fill,
            dimension_names=("chain", group.sample_dim, *variable.dims),
        )
    _create_coords(node, name, sizes, {"chain": range(chains), group.sample_dim: range(group.length), **coords})


def _create_static(node: Any, name: str, arrays: Mapping[str, Any], coords: Mapping[str, Sequence[Any]]) -> None:
    """Write the arrays of a group without sample dimensions."""
    sizes: dict[str, int] = {}
    for key, (dims, values) in arrays.items():
        values = np.asarray(values)
        _check_sizes(f"{name}/{key}", dims, values.shape, sizes)
        _write_whole(node, key, dims, values)
    _create_coords(node, name, sizes, coords)


def _create_coords(node: Any, name: str, sizes: Mapping[str, int], coords: Mapping[str, Sequence[Any]]) -> None:
    """Write the labels of the dimensions a group has."""
    for dim, size in sizes.items():
        if dim not in coords:
            continue
        labels = np.asarray(coords[dim])
        if len(labels) != size:
            raise ValueError(f"{name}: dimension {dim} has size {size} and {len(labels)} labels: give one label each")
        if dim in node:
            raise ValueError(f"{name}: the variable {dim} is named like a dimension: rename it")
        _write_whole(node, dim, (dim,), labels)


def _create_progress(root: Any, groups: Mapping[str, Group], chains: int) -> None:
    """Allocate one counter per group and chain, in chunks of their own."""
    node = root.create_group("progress")
    for name, group in groups.items():
        node.create_array(
            name,
            shape=(chains,),
            chunks=(1,),
            dtype="int64",
            compressors=_compressors(),
            fill_value=0,
            dimension_names=("chain",),
            attributes={"sample_dim": group.sample_dim},
        )


def _compressors() -> list[Any]:
    """Compress, then add a checksum, which Zarr verifies on reading."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [ZstdCodec(level=0), Crc32cCodec()]


def _check_sizes(where: str, dims: tuple[str, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    """Record the sizes of the dimensions of a group; refuse two sizes for one name."""
    if len(dims) != len(shape):
        raise ValueError(f"{where} has dimensions {dims} and shape {shape}: give one name per dimension")
    for dim, size in zip(dims, shape, strict=True):
        if sizes.setdefault(dim, size) != size:
            raise ValueError(f"{where} has {size} along {dim}, where its group has {sizes[dim]}: make them equal")


def _write_whole(node: Any, name: str, dims: tuple[str, ...], values: np.ndarray) -> None:
    """Write one array in one chunk; text as Zarr's variable-length strings, which read back without a warning."""
    text = values.dtype.kind in "UO"
    array = node.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, size) for size in values.shape),
        dtype="string" if text else values.dtype,
        compressors=_compressors(),
        dimension_names=dims,
    )
    array[...] = values.astype(object) if text else values
