"""ImageNet as shards: squares of pixels, decoded once, in files that are mapped into memory.

    DST/plan.json             what is being made; a second run with another plan is refused
    DST/train-00000.npy       uint8, (pictures, size, size, 3), in a fixed random order over the classes
    DST/train-00000.json      labels, checksum and what was skipped: written last, so it marks a finished shard
    DST/index.json            classes and counts: written when all shards are there

Decoding costs more than a training step of a small network; reading a mapped shard is a copy of memory. The checksums
are verified when `prepare` runs again on the same folders, not at every start of a run: that would read it all.
"""

import hashlib
import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgmcmc_prune.data.class_folders import list_pictures, read_picture, same_classes
from sgmcmc_prune.data.pictures import Pictures, Pixels
from sgmcmc_prune.store.files import atomic_path, read_json, write_json

#: Pictures in a shard: 201 MB at 256 pixels.
PER_SHARD = 1024
SPLITS = ("train", "val")
_HEADER = 128


@dataclass(frozen=True)
class _Shard:
    """One shard to be written."""

    path: Path
    files: list[Path]
    labels: list[int]
    size: int
    skip_corrupt: bool

    @property
    def record(self) -> Path:
        """The small file that marks it as finished."""
        return self.path.with_suffix(".json")


def prepare(
    src: Path, dst: Path, size: int = 256, processes: int = 1, skip_corrupt: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Decode class folders into shards. Run it again after an interruption: what is whole is kept, the rest is redone.

    Parameters
    ----------
    src : Path
        Holds `train/CLASS/*.jpg` and `val/CLASS/*.jpg`.
    dst : Path
    size : int
        Height and width of the stored squares; the network sees the middle 7/8.
    processes : int
    skip_corrupt : bool
        Leave pictures that cannot be decoded out, and count and name them, instead of stopping.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        The content of `index.json`: `classes`, `size`, and per split `pictures`, `skipped` (names) and `shards`.

    Raises
    ------
    ValueError
        If the class folders of the splits differ, a picture is corrupt (named), the disk is too small, `dst` holds
        shards of another plan, or a number is not positive.
    """
    from tqdm import tqdm

    if size < 8 or processes < 1:
        raise ValueError(f"size is {size} and processes {processes}; give at least 8 pixels and 1 process")
    classes = same_classes(src / "train", src / "val")
    shards = {split: _plan(src, dst, split, classes, size, skip_corrupt) for split in SPLITS}
    every = [shard for split in SPLITS for shard in shards[split]]
    _check_plan(dst, classes, size, skip_corrupt, every)
    _check_space(dst, every)
    with tqdm(total=sum(len(s.files) for s in every), desc="prepare", unit="picture", disable=not progress) as bar:
        for count in _write_all(every, processes):
            bar.update(count)
    index = {"classes": list(classes), "size": size, **{split: _summary(shards[split]) for split in SPLITS}}
    write_json(dst / "index.json", index)
    return index


def _plan(src: Path, dst: Path, split: str, classes: tuple[str, ...], size: int, skip: bool) -> list[_Shard]:
    files, labels = list_pictures(src / split, classes)
    starts = range(0, len(files), PER_SHARD)
    parts = [(files[i : i + PER_SHARD], labels[i : i + PER_SHARD].tolist()) for i in starts]
    return [_Shard(dst / f"{split}-{k:05d}.npy", f, y, size, skip) for k, (f, y) in enumerate(parts)]


def _check_plan(dst: Path, classes: tuple[str, ...], size: int, skip: bool, shards: list[_Shard]) -> None:
    """Write the plan, or refuse if the folder was begun with another one."""
    names = "\n".join(f"{file.parent.name}/{file.name}" for shard in shards for file in shard.files)
    digest = hashlib.sha256(names.encode()).hexdigest()
    plan = {"size": size, "per_shard": PER_SHARD, "classes": len(classes), "pictures": digest, "skip_corrupt": skip}
    path = dst / "plan.json"
    if path.exists():
        old = read_json(path)
        changed = [
            f"{key} {old.get(key)!r} instead of {value!r}" for key, value in plan.items() if old.get(key) != value
        ]
        if changed:
            raise ValueError(f"{dst} was begun with {', '.join(changed)}; finish it that way, or choose another folder")
    elif dst.exists() and any(dst.iterdir()):
        raise ValueError(f"{dst} is not empty and holds no shards (plan.json); choose another folder")
    write_json(path, plan)


def _check_space(dst: Path, shards: list[_Shard]) -> None:
    """Refuse to start what the disk cannot hold."""
    missing = [shard for shard in shards if not shard.record.exists()]
    needed = sum(len(s.files) * s.size**2 * 3 + _HEADER for s in missing)
    free = shutil.disk_usage(dst).free
    if needed > free:
        raise ValueError(
            f"the shards need {needed / 1e9:.2f} GB under {dst} and {free / 1e9:.2f} GB are free; choose another disk "
            "or a smaller --size"
        )


def _write_all(shards: list[_Shard], processes: int) -> Iterator[int]:
    """Write the shards that are not whole; yield the number of pictures of each when it is there."""
    if processes == 1:
        yield from map(_write, shards)
        return
    # Spawned, not forked: the parent may hold threads and a GPU.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(_write, shard) for shard in shards]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write(shard: _Shard) -> int:
    """Write one shard unless it is there and whole."""
    if shard.record.exists() and _digest(shard.path) == read_json(shard.record)["sha256"]:
        return len(shard.files)
    pixels, labels, skipped = [], [], []
    for file, label in zip(shard.files, shard.labels, strict=True):
        try:
            pixels.append(read_picture(file, shard.size))
            labels.append(label)
        except ValueError as error:
            if not shard.skip_corrupt:
                raise ValueError(f"{error}; replace it, or leave such pictures out with --skip-corrupt") from error
            skipped.append(f"{file.parent.name}/{file.name}")
    content = io.BytesIO()
    np.save(content, np.stack(pixels) if pixels else np.empty((0, shard.size, shard.size, 3), np.uint8))
    with atomic_path(shard.path) as partial:
        partial.write_bytes(content.getbuffer())
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    write_json(shard.record, {"labels": labels, "sha256": digest, "skipped": skipped})
    return len(shard.files)


def _digest(path: Path) -> str:
    """The checksum of a file, empty if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _summary(shards: list[_Shard]) -> dict[str, Any]:
    records = [read_json(shard.record) for shard in shards]
    return {
        "shards": len(shards),
        "pictures": sum(len(r["labels"]) for r in records),
        "skipped": [name for r in records for name in r["skipped"]],
    }


class Shards:
    """A source of pictures that reads mapped shards.

    Parameters
    ----------
    paths : list of Path
    counts : list of int
        Pictures in each.
    size : int

    Raises
    ------
    ValueError
        If a shard is missing, cut short or of another shape (named).
    """

    def __init__(self, paths: list[Path], counts: list[int], size: int) -> None:
        self.size = size
        self.first = np.cumsum([0, *counts])
        self.maps = [_open(path, (count, size, size, 3)) for path, count in zip(paths, counts, strict=True)]

    def read(self, index: NDArray[np.int64]) -> Pixels:
        """Copy pictures out of the shards by number."""
        pixels = np.empty((len(index), self.size, self.size, 3), np.uint8)
        shards = np.searchsorted(self.first, index, side="right") - 1
        for row, (shard, number) in enumerate(zip(shards, index, strict=True)):
            pixels[row] = self.maps[shard][number - self.first[shard]]
        return pixels


def _open(path: Path, shape: tuple[int, ...]) -> Pixels:
    if shape[0] == 0:
        return np.empty(shape, np.uint8)
    advice = "run `sgmcmc-prune prepare` with the same folders again: it redoes what is damaged"
    try:
        pixels: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        what = "it is no file" if isinstance(error, FileNotFoundError) else "it is no whole .npy file of numbers"
        raise ValueError(f"shard {path} cannot be read ({what}); {advice}") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise ValueError(f"shard {path} holds {found}, expected uint8 of shape {shape}; {advice}")
    return pixels


def open_split(folder: Path, split: str) -> Pictures:
    """The pictures of a split; ValueError if preparing was not finished or a shard is damaged."""
    index = _index(folder)
    paths = [folder / f"{split}-{k:05d}.npy" for k in range(index[split]["shards"])]
    records = [read_json(path.with_suffix(".json")) for path in paths]
    labels = torch.tensor([label for r in records for label in r["labels"]], dtype=torch.int64)
    source = Shards(paths, [len(r["labels"]) for r in records], index["size"])
    return Pictures(source, torch.arange(len(labels)), labels)


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.is_file():
        raise ValueError(f"{folder} has shards but no index.json; finish it with `sgmcmc-prune prepare imagenet`")
    content: dict[str, Any] = read_json(path)
    return content
