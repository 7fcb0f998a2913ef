"""`bench data`: how many pictures a second the data paths deliver, beside what a network's steps need.

Two paths: images in the device's memory, cropped and flipped there (CIFAR), and shards on disk, read ahead by threads
and cropped on the device (ImageNet). The need is the rate of forward and backward passes of one network on pictures of
the same size. A path that delivers several times the need costs a step next to nothing; below one, steps wait.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune import likelihoods, models
from sgmcmc_prune.data import shards
from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.prefetch import PrefetchedStream
from sgmcmc_prune.likelihoods import mean_nll
from sgmcmc_prune.machine import timing
from sgmcmc_prune.text_table import format_rows

NETWORKS = ("resnet20", "resnet18", "resnet50")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_BLACK = torch.tensor([-2.0, -2.0, -2.0])


def bench_data(
    network: str = "resnet20",
    rounds: int = 7,
    device: str = "cpu",
    batch_size: int = 128,
    size: int = 256,
    pictures: int = 512,
    workers: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure both paths.

    Parameters
    ----------
    network : str
    rounds : int
        Repeats; a repeat is one minibatch. The first few, which come from what was read ahead, are not counted.
    device : str
    batch_size : int
    size : int
        Height and width of the pictures in the shards.
    pictures : int
        How many random pictures to write; from the second epoch on they come from the system's cache.
    workers : int
        Threads that read ahead.

    Returns
    -------
    dict
        `machine` and `rows`: path, pixels (that the network sees), delivered and needed images a second, their ratio.
    """
    rows = [_row("memory", _memory(batch_size, device), network, rounds, device, progress)]
    with tempfile.TemporaryDirectory() as folder:
        stream = _shards(Path(folder), size, pictures, min(batch_size, pictures), workers, device)
        rows.append(_row("shards", stream, network, rounds, device, progress))
    return {"bench": f"data {network}", "machine": timing.machine(), "batch_size": batch_size, "rows": rows}


def _row(path: str, stream: MinibatchStream, network: str, rounds: int, device: str, progress: bool) -> dict[str, Any]:
    images = stream.batch(0)[0]
    ahead = 2 * getattr(stream, "workers", 1) + 1
    delivered = stream.batch_size / _seconds(_reader(stream), rounds, ahead, f"bench data {path}", progress)
    few = images[:8] if device == "cpu" else images
    needed = len(few) / _seconds(_step(network, few), min(rounds, 7), 1, f"bench data {network}", progress)
    return {
        "path": path,
        "pixels": images.shape[-1],
        "delivered": delivered,
        "needed": needed,
        "ratio": delivered / needed,
    }


def _seconds(work: Callable[[], Any], rounds: int, warm_up: int, title: str, progress: bool) -> float:
    """Median seconds of one call."""
    seconds = timing.interleaved({title: work}, rounds, warm_up, title, progress)[title]
    return sorted(seconds)[len(seconds) // 2]


def _memory(batch_size: int, device: str) -> MinibatchStream:
    images = torch.randn(20 * batch_size, 3, 32, 32, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    return MinibatchStream(images, labels, batch_size, 0, 0, Augmentation("crop_flip", 32, _BLACK.to(device), 0, 0))


def _shards(folder: Path, size: int, pictures: int, batch_size: int, workers: int, device: str) -> MinibatchStream:
    """Random pictures in class folders, prepared as a user would."""
    from PIL import Image

    for split, count in (("train", pictures), ("val", 1)):
        for name in ("a", "b"):
            (folder / "src" / split / name).mkdir(parents=True)
            for i in range(-(-count // 2)):
                pixels = torch.randint(256, (size, size, 3), dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / "src" / split / name / f"{i}.jpg")
    shards.prepare(folder / "src", folder / "dst", size, progress=False)
    found = shards.open_split(folder / "dst", "train")
    inputs = found.inputs(MEAN, STD, device)
    augment = Augmentation("resized_crop_flip", inputs.side, _BLACK.to(device), 0, 0)
    return PrefetchedStream(inputs, found.labels, batch_size, 0, 0, augment, workers)


def _reader(stream: MinibatchStream) -> Callable[[], Any]:
    """One minibatch after the other."""
    step = -1

    def read() -> None:
        nonlocal step
        step += 1
        stream.batch(step)

    return read


def _step(network: str, images: Tensor) -> Callable[[], Any]:
    """Forward and backward pass of one minibatch."""
    model = models.build(network, tuple(images.shape[1:]), 10, seed=0).to(images.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def step() -> None:
        model.zero_grad()
        mean_nll(likelihoods.categorical, model(images), labels).backward()

    return step


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = ("path", "pixels", "delivered images/s", "needed images/s", "delivered / needed")
    rows = [
        [r["path"], str(r["pixels"]), f"{r['delivered']:,.0f}", f"{r['needed']:,.1f}", f"{r['ratio']:.1f}"]
        for r in result["rows"]
    ]
    return format_rows(header, rows)
