"""Minibatches of pictures on disk, read ahead by threads so that no step waits for them."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from sgmcmc_prune.data.batches import WHOLE, MinibatchStream, Transform
from sgmcmc_prune.data.pictures import PictureInputs, centre


class PrefetchedStream(MinibatchStream):
    """The minibatches of `MinibatchStream`, for pictures that are not in memory.

    The order, and so a batch, depends on (seed, chain, step) alone; threads only decide when it is read. Reading copies
    memory or decodes files, and both leave the interpreter free, so threads scale and nothing is sent between
    processes. Normalisation and augmentation happen on the device.

    Parameters
    ----------
    inputs : PictureInputs
    targets : Tensor, int64, shape (n,)
        On the device of `inputs`.
    batch_size, seed, chain, transform
        As in `MinibatchStream`.
    workers : int
        Threads; twice as many batches are kept ready.

    Raises
    ------
    ValueError
        If there is no worker, and as `MinibatchStream`.
    """

    def __init__(
        self,
        inputs: PictureInputs,
        targets: Tensor,
        batch_size: int,
        seed: int,
        chain: int,
        transform: Transform | None = None,
        workers: int = 4,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; pictures are read by at least one")
        super().__init__(torch.arange(len(inputs)), targets.cpu(), batch_size, seed, chain)
        self.pictures, self.transform, self.workers = inputs, transform, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self._ready: dict[tuple[int, int, int], Future[tuple[Tensor, Tensor]]] = {}

    def batch(self, step: int, part: slice = WHOLE) -> tuple[Tensor, Tensor]:
        """Give a part of batch number `step`, and start reading that of those after it."""
        if step < 0:
            raise ValueError(f"step is {step}; steps are counted from 0")
        first, last, _ = part.indices(self.batch_size)
        wanted = [(ahead, first, last) for ahead in range(step, step + 2 * self.workers + 1)]
        for skipped in [key for key in self._ready if key not in wanted]:
            self._ready.pop(skipped).cancel()
        for key in wanted:
            if key not in self._ready:
                index, labels = self._batch(key[0], part)
                self._ready[key] = self._pool.submit(self._read, index, labels)
        pixels, labels = self._ready.pop(wanted[0]).result()
        images = self.pictures.normalised(pixels)
        images = centre(images, self.pictures.side) if self.transform is None else self.transform(images, step, first)
        return images, labels.to(self.pictures.device, non_blocking=True)

    def _read(self, index: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.pictures.read(index)
        return (pixels.pin_memory() if self.pictures.device.type == "cuda" else pixels), labels
