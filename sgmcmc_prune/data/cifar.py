"""CIFAR-10 and CIFAR-100 from the official files (binary or python layout), or CIFAR-10 from pictures in class folders.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", technical report, Toronto, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html describes both layouts.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgmcmc_prune.data import class_folders
from sgmcmc_prune.data.download import download
from sgmcmc_prune.data.image_data import Dataset, Images
from sgmcmc_prune.data.places import cache_dir, named_folders
from sgmcmc_prune.data.restricted_pickle import read_mapping

_PIXELS = 3 * 32 * 32
_URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Layout:
    """One published form of a data set: its files (training first, test last) with their official checksums.

    `names` is the file that names the classes, where that is read.
    """

    kind: str
    folder: str
    archive: str
    archive_sha256: str
    files: dict[str, str]
    names: str = ""


@dataclass(frozen=True)
class Version:
    """CIFAR-10 or CIFAR-100: `labels` bytes before each image (the last is the class), and the pixels' moments."""

    num_classes: int
    labels: int
    python_key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layouts: tuple[Layout, Layout]


#: Mean and standard deviation are those of the training pixels divided by 255. (A common second set for CIFAR-10, with
#: .2023, .1994, .2010, averages the standard deviations of single images.)
VERSIONS = {
    "cifar10": Version(
        num_classes=10,
        labels=1,
        python_key="labels",
        mean=(0.491400, 0.482158, 0.446531),
        std=(0.247032, 0.243485, 0.261588),
        layouts=(
            Layout(
                "binary",
                "cifar-10-batches-bin",
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                {
                    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
                },
            ),
            Layout(
                "python",
                "cifar-10-batches-py",
                "cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                {
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                },
            ),
        ),
    ),
    "cifar100": Version(
        num_classes=100,
        labels=2,
        python_key="fine_labels",
        mean=(0.507075, 0.486549, 0.440918),
        std=(0.267334, 0.256438, 0.276150),
        layouts=(
            Layout(
                "binary",
                "cifar-100-binary",
                "cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                {
                    "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
                    "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
                },
                names="fine_label_names.txt",
            ),
            Layout(
                "python",
                "cifar-100-python",
                "cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
                names="meta",
            ),
        ),
    ),
}
#: The classes of CIFAR-10 in the order of their labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Found:
    """Files of one layout: where they are, how to read one by name, and what names the classes, if it is there."""

    layout: Layout
    place: Path
    read: Callable[[str], bytes]
    names: bytes | None


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Load 50,000 training and 10,000 test images of 32x32 pixels.

    Checksums are always compared with the official ones. Files that differ are read all the same, and the provenance
    (which every run records) then says `official: False`.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
    data_dir : path, optional
        A folder with the official files, or with one of their folders, or with an official `.tar.gz`; for CIFAR-10
        also one with pictures, `train/airplane/*.jpg` and so on. Each may be in a folder `cifar10` (`cifar100`) of its
        own. Without it, `$SGMCMC_PRUNE_DATA` and the user's cache folder are searched, and the binary archive (about
        170 MB) is downloaded to the last.

    Returns
    -------
    Dataset
        Images of shape (n, 3, 32, 32). The classes of CIFAR-100 have names where `fine_label_names.txt` (binary layout)
        or `meta` (python layout) lies beside the images, as in the official archives, and numbers elsewhere.

    Raises
    ------
    ValueError
        If `data_dir` is given and holds none of these, or a file is corrupt.
    RunError
        If the archive has to be downloaded and the server does not answer.
    """
    roots = [Path(data_dir).expanduser()] if data_dir is not None else [*named_folders(), cache_dir(name)]
    for root in (base / part for base in roots for part in ("", name)):
        found = next(_files(name, root), None)
        if found is not None:
            return _read(name, found)
        if name == "cifar10" and all((root / "train" / label).is_dir() for label in CLASSES):
            return _pictures(root)
    if data_dir is not None:
        kinds = " or ".join(f"{layout.folder}/ or {layout.archive}" for layout in VERSIONS[name].layouts)
        raise ValueError(f"{data_dir} holds no {name}; expected {kinds}, directly or in {name}/")
    archive = VERSIONS[name].layouts[0]
    target = cache_dir(name) / archive.archive
    download([_URL + archive.archive], target, archive.archive_sha256, compressed=True)
    return _read(name, next(_files(name, target.parent)))


def _files(name: str, root: Path) -> Iterator[_Found]:
    """The layouts found in a folder, unpacked ones first."""
    layouts = VERSIONS[name].layouts
    for layout in layouts:
        for folder in (root / layout.folder, root):
            if all((folder / file).is_file() for file in layout.files):
                names = _read_file(folder, layout.names) if (folder / layout.names).is_file() else None
                yield _Found(layout, folder, partial(_read_file, folder), names)
    for layout in layouts:
        archive = root / layout.archive
        if archive.is_file():
            members = _members(archive, layout)
            yield _Found(layout, archive, members.__getitem__, members.get(layout.names))


def _read_file(folder: Path, file: str) -> bytes:
    return (folder / file).read_bytes()


def _members(archive: Path, layout: Layout) -> dict[str, bytes]:
    """The files of a layout in its archive, read in memory: nothing is unpacked to disk."""
    members, wanted = {}, (*layout.files, layout.names)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                content = tar.extractfile(member) if folder.endswith(layout.folder) and file in wanted else None
                if content is not None:
                    members[file] = content.read()
            while tar.fileobj and tar.fileobj.read(2**20):  # to the checksum at the end
                pass
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{archive} is not a whole archive ({reason}); download it again") from error
    missing = [file for file in layout.files if file not in members]
    if missing:
        raise ValueError(f"{archive} lacks {', '.join(missing)}; download it again")
    return members


def _read(name: str, found: _Found) -> Dataset:
    """Read, verify and assemble the files of a layout."""
    version, parts, digests, unofficial = VERSIONS[name], [], {}, []
    for file, official in found.layout.files.items():
        data = found.read(file)
        digests[file] = hashlib.sha256(data).hexdigest()
        algorithm = "md5" if len(official) == 32 else "sha256"
        if hashlib.new(algorithm, data).hexdigest() != official:
            unofficial.append(file)
        parts.append((_binary if found.layout.kind == "binary" else _python)(data, str(found.place / file), version))
    train = Images(torch.cat([p.images for p in parts[:-1]]), torch.cat([p.labels for p in parts[:-1]]))
    provenance: dict[str, Any] = {"official": not unofficial, "layout": found.layout.kind}
    if unofficial:
        provenance["unofficial_files"] = unofficial
    names = CLASSES if name == "cifar10" else _class_names(found, version)
    return _dataset(name, train, parts[-1], names, provenance | {"directory": str(found.place), "files": digests})


def _class_names(found: _Found, version: Version) -> tuple[str, ...]:
    """The classes in the order of their labels, as the files name them; none where they do not."""
    if found.names is None:
        return ()
    file = str(found.place / found.layout.names)
    if found.layout.kind == "binary":
        names = found.names.decode("ascii", "replace").split()
    else:
        listed = read_mapping(found.names, file).get("fine_label_names", ())
        names = [name.decode("ascii", "replace") if isinstance(name, bytes) else str(name) for name in listed]
    if not len(names) == len(set(names)) == version.num_classes:
        raise ValueError(f"{file} names {len(set(names))} different classes, expected {version.num_classes}")
    return tuple(names)


def _dataset(name: str, train: Images, test: Images, names: tuple[str, ...], provenance: dict[str, Any]) -> Dataset:
    version = VERSIONS[name]
    source = {"source": f"{_URL}cifar.html", "licence": "none stated; cite Krizhevsky 2009"}
    moments = (version.mean, version.std)
    return Dataset(name, train, test, version.num_classes, *moments, source | provenance, classes=names)


def _binary(data: bytes, file: str, version: Version) -> Images:
    """Rows of label bytes and 3,072 pixel bytes: the red plane, the green, the blue."""
    row = version.labels + _PIXELS
    if not data or len(data) % row:
        raise ValueError(f"{file}: {len(data)} bytes found, expected a multiple of {row}, the size of an image")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    return _images(rows[:, version.labels :], rows[:, version.labels - 1], file, version)


def _python(data: bytes, file: str, version: Version) -> Images:
    """A pickled dictionary with the same pixels under `data` and the classes under `labels` or `fine_labels`."""
    content = read_mapping(data, file)
    pixels, labels = content.get("data"), content.get(version.python_key)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (len(labels or ()), _PIXELS) or not labels:
        raise ValueError(
            f"{file}: keys {', '.join(content)} found, expected 'data' of shape (n, {_PIXELS}) and n numbers under "
            f"{version.python_key!r}"
        )
    return _images(pixels, np.asarray(labels), file, version)


def _images(pixels: np.ndarray, labels: np.ndarray, file: str, version: Version) -> Images:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"{file}: labels are {labels.dtype} of shape {labels.shape}, expected a list of integers")
    if labels.min() < 0 or labels.max() >= version.num_classes:
        raise ValueError(
            f"{file}: labels {labels.min()} to {labels.max()} found, expected 0 to {version.num_classes - 1}"
        )
    images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    return Images(images, torch.from_numpy(labels.astype(np.int64)))


def _pictures(root: Path) -> Dataset:
    """CIFAR-10 as single pictures, JPEG or PNG: never official, for decoded pictures are not the published bytes."""
    splits, digests = [], {}
    for split in ("train", "test"):
        files, labels = class_folders.list_pictures(root / split, CLASSES)
        images = Images(class_folders.read_all(files, size=32), labels)
        digests[f"{split}, decoded"] = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
        splits.append(images)
    provenance = {"official": False, "layout": "pictures", "directory": str(root), "files": digests}
    return _dataset("cifar10", splits[0], splits[1], CLASSES, provenance)


def cifar10(data_dir: str | Path | None = None) -> Dataset:
    """CIFAR-10, from its official files or a download (`load`)."""
    return load("cifar10", data_dir)


def cifar100(data_dir: str | Path | None = None) -> Dataset:
    """CIFAR-100, from its official files or a download (`load`)."""
    return load("cifar100", data_dir)
