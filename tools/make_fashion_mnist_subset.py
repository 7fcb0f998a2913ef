"""Make the Fashion-MNIST subset that ships with the package, from the official files.

    python tools/make_fashion_mnist_subset.py [DATA_DIR]

Writes sgmcmc_prune/data/fashion_mnist_subset/*.gz and prints what `SUBSET_FILES` in fashion_mnist.py must say.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import torch

from sgmcmc_prune.data import fashion_mnist
from sgmcmc_prune.data.idx import write_idx

TRAIN, TEST = 7_000, 1_000
TARGET = Path(fashion_mnist.__file__).parent / "fashion_mnist_subset"


def main() -> None:
    """Cut, write, and print checksums, sizes and class counts."""
    full = fashion_mnist.load(sys.argv[1] if len(sys.argv) > 1 else None)
    TARGET.mkdir(exist_ok=True)
    for prefix, part, count in (("train", full.train, TRAIN), ("t10k", full.test, TEST)):
        write_idx(TARGET / f"{prefix}-images-idx3-ubyte.gz", part.images[:count, 0])
        write_idx(TARGET / f"{prefix}-labels-idx1-ubyte.gz", part.labels[:count].to(torch.uint8))
        print(f"{prefix}: class counts {part.labels[:count].bincount().tolist()}")
    for file in fashion_mnist.FILES:
        data = (TARGET / file).read_bytes()
        print(f'    "{file}": "{hashlib.sha256(gzip.decompress(data)).hexdigest()}",  # {len(data)} bytes')


if __name__ == "__main__":
    main()
