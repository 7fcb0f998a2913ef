"""ImageNet from shards, or from class folders; and any other pictures in the same folders.

Source: O. Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 2015. The training set and the
50,000 validation pictures (which serve as the test set, as everywhere) have to be fetched by hand after registration.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch

from sgmcmc_prune.data import shards
from sgmcmc_prune.data.class_folders import list_pictures, same_classes
from sgmcmc_prune.data.image_data import Dataset
from sgmcmc_prune.data.pictures import DecodedPictures, Pictures
from sgmcmc_prune.data.places import named_folders
from sgmcmc_prune.store.files import read_json

#: Of the training pixels divided by 255, as everybody uses them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Classes, training and validation pictures of the official set.
OFFICIAL = (1000, 1_281_167, 50_000)
_SIZE = 256


def load(data_dir: str | Path | None = None) -> Dataset:
    """Open ImageNet without reading its pictures.

    Parameters
    ----------
    data_dir : path, optional
        A folder written by `sgmcmc-prune prepare imagenet`, or one with `train/CLASS/` and `val/CLASS/` (these are
        decoded anew every time they are read). By default `$SGMCMC_PRUNE_DATA`, or `imagenet/` in it.

    Returns
    -------
    Dataset
        `provenance["official"]` says whether the numbers of classes and pictures are those of the official set: no
        checksum of it is published.

    Raises
    ------
    ValueError
        If there is no such folder, it is not finished or damaged, or its splits have different classes.
    """
    roots = [Path(data_dir).expanduser()] if data_dir is not None else named_folders()
    for root in (base / part for base in roots for part in ("", "imagenet")):
        if (root / "plan.json").is_file():
            return _from_shards(root)
        if (root / "train").is_dir():
            return _from_folders(root)
    raise ValueError(
        f"no ImageNet in {data_dir or '$SGMCMC_PRUNE_DATA'}; give --data.data-dir with shards from "
        "`sgmcmc-prune prepare imagenet SRC DST`, or with train/CLASS/ and val/CLASS/"
    )


def _from_shards(root: Path) -> Dataset:
    train, test = (shards.open_split(root, split) for split in shards.SPLITS)
    index = read_json(root / "index.json")
    skipped = sum(len(index[split]["skipped"]) for split in shards.SPLITS)
    files = {"plan.json": hashlib.sha256((root / "plan.json").read_bytes()).hexdigest()}
    details = {"layout": "shards", "stored_size": index["size"], "skipped_pictures": skipped, "files": files}
    return _dataset(root, index["classes"], train, test, details)


def _from_folders(root: Path) -> Dataset:
    classes = same_classes(root / "train", root / "val")
    splits = []
    for split in shards.SPLITS:
        files, labels = list_pictures(root / split, classes)
        splits.append(Pictures(DecodedPictures(files, _SIZE), torch.arange(len(files)), labels))
    details = {"layout": "class folders", "stored_size": _SIZE, "files": {}}
    return _dataset(root, classes, splits[0], splits[1], details)


def _dataset(root: Path, classes: Any, train: Pictures, test: Pictures, details: dict[str, Any]) -> Dataset:
    official = (len(classes), len(train), len(test)) == OFFICIAL
    source = {"source": "https://www.image-net.org", "licence": "research only, by registration"}
    provenance = source | {"official": official, "directory": str(root)} | details
    return Dataset("imagenet", train, test, len(classes), MEAN, STD, provenance, classes=tuple(classes))
