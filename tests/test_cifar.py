"""CIFAR in both published layouts, from small files made here byte by byte; the restricted unpickler; other images."""

import hashlib
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from sgmcmc_prune import data
from sgmcmc_prune.data import cifar, ood
from sgmcmc_prune.data.restricted_pickle import read_mapping
from sgmcmc_prune.errors import RunError

RNG = np.random.default_rng(0)
ROWS = 4
PIXELS = RNG.integers(0, 256, (6 * ROWS, 3072), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 6 * ROWS, dtype=np.uint8)
TEN, HUNDRED = cifar.VERSIONS["cifar10"], cifar.VERSIONS["cifar100"]


def _string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def published_pickle(pixels: np.ndarray, labels: list[int], key: bytes) -> bytes:
    """A dictionary as Python 2 pickled it (protocol 2), opcode by opcode: the format of the published files."""
    content = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + _string(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _string(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"M" + struct.pack("<H", pixels.shape[0]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86"
    array += b"(K\x01" + shape + kind + b"\x89" + b"T" + struct.pack("<I", len(content)) + content + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    return b"\x80\x02}(" + _string(key) + numbers + _string(b"data") + array + b"u."


def write_binary(folder: Path, version: cifar.Version) -> Path:
    """The files of the binary layout, ROWS images in each; CIFAR-100's coarse label is 7 throughout."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(version.layouts[0].files):
        part = slice(i * ROWS, (i + 1) * ROWS)
        coarse = [np.full((ROWS, 1), 7, np.uint8)] if version.labels == 2 else []
        rows = np.concatenate([*coarse, LABELS[part, None], PIXELS[part]], axis=1)
        (folder / file).write_bytes(rows.tobytes())
    return folder


def write_python(folder: Path, version: cifar.Version) -> Path:
    """The same images in the python layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(version.layouts[1].files):
        part = slice(i * ROWS, (i + 1) * ROWS)
        content = published_pickle(PIXELS[part], LABELS[part].tolist(), version.python_key.encode())
        (folder / file).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SGMCMC_PRUNE_DATA", raising=False)
    monkeypatch.setattr(cifar, "_URL", (tmp_path / "server").as_uri() + "/")


def check(dataset: data.Dataset, files: int) -> None:
    """Every byte is where it belongs: training files first, channels as planes, rows before columns."""
    n = (files - 1) * ROWS
    planes = torch.from_numpy(PIXELS[: files * ROWS].reshape(-1, 3, 32, 32))
    assert torch.equal(dataset.train.images, planes[:n])
    assert torch.equal(dataset.test.images, planes[n:])
    assert dataset.train.labels.tolist() == LABELS[:n].tolist()
    assert dataset.test.labels.tolist() == LABELS[n : n + ROWS].tolist()


@pytest.mark.parametrize(("name", "files"), [("cifar10", 6), ("cifar100", 2)])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("place", ["", "{folder}", "{name}/{folder}"])
def test_both_layouts_byte_for_byte(name: str, files: int, layout: int, place: str, tmp_path: Path) -> None:
    version = cifar.VERSIONS[name]
    folder = tmp_path / "d" / place.format(folder=version.layouts[layout].folder, name=name)
    (write_binary, write_python)[layout](folder, version)
    dataset = data.load(name, tmp_path / "d")
    check(dataset, files)
    assert (dataset.num_classes, dataset.provenance["official"]) == (version.num_classes, False)
    assert dataset.classes == (cifar.CLASSES if name == "cifar10" else ())
    assert dataset.provenance["unofficial_files"] == list(version.layouts[layout].files)
    assert dataset.provenance["directory"] == str(folder)
    assert all(
        digest == hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for file, digest in dataset.provenance["files"].items()
    )


def write_names(folder: Path, layout: int, count: int = 100) -> tuple[str, ...]:
    """The file that names the classes, as it is published: lines, or a Python 2 pickle of two lists."""
    names = tuple(f"class_{i}" for i in range(count))
    if layout == 0:
        (folder / "fine_label_names.txt").write_text("\n".join([*names, ""]))
    else:
        lists = [b"](" + b"".join(_string(name.encode()) for name in part) + b"e" for part in (names, ("coarse",))]
        keys = (_string(b"fine_label_names"), _string(b"coarse_label_names"))
        content = b"".join(part for pair in zip(keys, lists, strict=True) for part in pair)
        (folder / "meta").write_bytes(b"\x80\x02}(" + content + b"u.")
    return names


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_the_classes_of_cifar100_have_the_names_of_their_file(layout: int, packed: bool, tmp_path: Path) -> None:
    """Which ArviZ and the report then show; a file with others than a hundred names is refused."""
    folder, form = tmp_path / "files", HUNDRED.layouts[layout]
    (write_binary, write_python)[layout](folder, HUNDRED)
    names = write_names(folder, layout)
    if packed:
        archive(folder, tmp_path / form.archive, form.folder)
    place = tmp_path if packed else folder
    dataset = data.load("cifar100", place)
    check(dataset, 2)
    assert dataset.classes == names
    assert list(dataset.provenance["files"]) == list(form.files), "names are no data"
    write_names(folder, layout, 99)
    if packed:
        archive(folder, tmp_path / form.archive, form.folder)
    with pytest.raises(ValueError, match=f"{form.names} names 99 different classes, expected 100"):
        data.load("cifar100", place)


@pytest.mark.parametrize(("layout", "algorithm"), [(0, "sha256"), (1, "md5")])
def test_official_only_if_every_checksum_is(
    layout: int, algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = (write_binary, write_python)[layout](tmp_path / "d", TEN)
    official = {f: hashlib.new(algorithm, (folder / f).read_bytes()).hexdigest() for f in TEN.layouts[layout].files}
    layouts = tuple(replace(part, files=official) if i == layout else part for i, part in enumerate(TEN.layouts))
    monkeypatch.setitem(cifar.VERSIONS, "cifar10", replace(TEN, layouts=layouts))
    assert data.load("cifar10", folder).provenance["official"] is True
    if layout == 0:
        first = folder / next(iter(official))
        content = first.read_bytes()
        first.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        again = data.load("cifar10", folder).provenance
        assert (again["official"], again["unofficial_files"]) == (False, [first.name])


def test_official_checksums_have_the_right_form() -> None:
    for version in (TEN, HUNDRED):
        for layout in version.layouts:
            assert {len(digest) for digest in layout.files.values()} == {64 if layout.kind == "binary" else 32}
            assert len(layout.archive_sha256) == 64


def archive(source: Path, target: Path, folder: str) -> str:
    """Pack files as the server does; returns the checksum."""
    with tarfile.open(target, "w:gz") as tar:
        for file in sorted(source.iterdir()):
            tar.add(file, f"{folder}/{file.name}")
    return hashlib.sha256(target.read_bytes()).hexdigest()


def test_archive_is_read_without_unpacking_and_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = TEN.layouts[0]
    (tmp_path / "server").mkdir()
    digest = archive(write_binary(tmp_path / "files", TEN), tmp_path / "server" / binary.archive, binary.folder)
    check(data.load("cifar10", tmp_path / "server"), 6)
    with pytest.raises(ValueError, match=rf"{binary.archive}: sha256 of the file is {digest}, expected c4a38c50"):
        data.load("cifar10")
    layouts = (replace(binary, archive_sha256=digest), TEN.layouts[1])
    monkeypatch.setitem(cifar.VERSIONS, "cifar10", replace(TEN, layouts=layouts))
    check(data.load("cifar10"), 6)
    (tmp_path / "server" / binary.archive).unlink()
    check(data.load("cifar10"), 6)
    with pytest.raises(RunError, match="could not be downloaded"):
        data.load("cifar100")


def test_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_python(tmp_path / "all" / "cifar10" / TEN.layouts[1].folder, TEN)
    monkeypatch.setenv("SGMCMC_PRUNE_DATA", str(tmp_path / "all"))
    check(data.load("cifar10"), 6)


def test_pictures_in_class_folders(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for split, count in (("train", 3), ("test", 2)):
        for k, name in enumerate(cifar.CLASSES):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                square = PIXELS[k + i].reshape(32, 32, 3)
                image.fromarray(square).save(tmp_path / split / name / f"{i:04d}.png")
    dataset = data.load("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (30, 20)
    assert dataset.train.labels.bincount().tolist() == [3] * 10
    assert dataset.train.labels.tolist() != sorted(dataset.train.labels.tolist())
    assert (dataset.provenance["official"], dataset.provenance["layout"]) == (False, "pictures")
    first = dataset.train.images[dataset.train.labels == 0]
    expected = {PIXELS[i].reshape(32, 32, 3).transpose(2, 0, 1).tobytes() for i in range(3)}
    assert {x.numpy().tobytes() for x in first} == expected
    assert torch.equal(data.load("cifar10", tmp_path).train.images, dataset.train.images)
    (tmp_path / "test" / "cat" / "0001.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match=r"test/cat/0001.png is not a readable picture"):
        data.load("cifar10", tmp_path)


class Malice:
    """Would run a command when unpickled without care."""

    def __reduce__(self) -> tuple:
        """Make a folder."""
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"data": Malice()}), r"it names posix\.mkdir; only numpy\.core\.multiarray\._reconstruct"),
        (b"cbuiltins\neval\n(S'1'\ntR.", r"it names builtins\.eval"),
        (b"cnumpy\nload\n.", r"it names numpy\.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", r"it names numpy\.core\.multiarray\.scalar"),
        (pickle.dumps([1, 2]), "a list found, expected a dictionary"),
        (published_pickle(PIXELS[:2], [1, 2], b"labels")[:-9], "not a file of CIFAR's python layout"),
        (published_pickle(PIXELS[:2], [1, 2], b"labels").replace(b"U\x02u1", b"U\x02f4"), "type b'f4' found"),
        (b"", "not a file of CIFAR's python layout"),
    ],
)
def test_unpickler_refuses(content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read_mapping(content, "some/file")
    assert "some/file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_unpickler_reads_what_numpy_would(tmp_path: Path) -> None:
    content = published_pickle(PIXELS[:2], [3, 1], b"labels")
    read = read_mapping(content, "x")
    assert read["labels"] == [3, 1]
    np.testing.assert_array_equal(read["data"], PIXELS[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], r"data_batch_1\.bin: 12291 bytes found, expected a multiple of 3073"),
        (lambda b: b"", r"data_batch_1\.bin: 0 bytes found"),
        (lambda b: b"\x0a" + b[1:], r"data_batch_1\.bin: labels .* to 10 found, expected 0 to 9"),
    ],
)
def test_corrupt_binary_file(change: object, message: str, tmp_path: Path) -> None:
    path = write_binary(tmp_path, TEN) / "data_batch_1.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        data.load("cifar10", tmp_path)


def test_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no cifar10; expected cifar-10-batches-bin/ or cifar-10-binary.tar.gz"):
        data.load("cifar10", tmp_path)
    (tmp_path / TEN.layouts[0].archive).write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz is not a whole archive"):
        data.load("cifar10", tmp_path)
    write_python(tmp_path / "p", TEN)
    content = published_pickle(PIXELS[:2], [3], b"labels")
    (tmp_path / "p" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch: keys labels, data found, expected 'data' of shape \(n, 3072\)"):
        data.load("cifar10", tmp_path / "p")


# --- images that no training set holds ---------------------------------------------------------------------------


def test_svhn(tmp_path: Path) -> None:
    planes = RNG.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": planes, "y": np.array([[1], [10], [3], [9], [10]], np.uint8)})
    images = ood.load_svhn(tmp_path)
    assert images.labels.tolist() == [1, 0, 3, 9, 0]
    np.testing.assert_array_equal(images.images.numpy(), planes.transpose(3, 2, 0, 1))
    (tmp_path / "train_32x32.mat").write_bytes(b"MATLAB 5.0" * 30)
    for split in ("train", "extra"):
        with pytest.raises(ValueError, match=f"{split}_32x32.mat is not a readable SVHN file"):
            ood.load_svhn(tmp_path, split)


def test_cifar10_c(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (15, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.array([4, 5, 6], np.uint8), 5))
    assert ood.corruptions(tmp_path) == ("fog",)
    for severity in (1, 5):
        part = ood.load_cifar10_c(tmp_path, "fog", severity)
        assert part.labels.tolist() == [4, 5, 6]
        block = images[3 * severity - 3 : 3 * severity]
        np.testing.assert_array_equal(part.images.numpy(), block.transpose(0, 3, 1, 2))
    for corruption, severity in (("frost", 1), ("fog", 6), ("fog", 0)):
        with pytest.raises(ValueError, match=f"corruption '{corruption}' at severity {severity} not found"):
            ood.load_cifar10_c(tmp_path, corruption, severity)
    np.save(tmp_path / "rain.npy", images[:7])
    with pytest.raises(ValueError, match=r"rain\.npy has shape \(7, 32, 32, 3\)"):
        ood.load_cifar10_c(tmp_path, "rain", 1)
    np.save(tmp_path / "snow.npy", np.array([Malice()], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"snow\.npy is not a readable \.npy file"):
        ood.load_cifar10_c(tmp_path, "snow", 1)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path: Path, share: float) -> None:
    layout = TEN.layouts[0]
    write_binary(tmp_path / "plain" / layout.folder, TEN)
    archive = tmp_path / layout.archive
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "plain" / layout.folder, layout.folder)
    raw = bytearray(archive.read_bytes())
    raw[int(share * len(raw))] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(ValueError, match=r"is not a whole archive .*; download it again"):
        cifar.load("cifar10", tmp_path)


def test_an_archive_of_links_is_refused(tmp_path: Path) -> None:
    layout = TEN.layouts[0]
    with tarfile.open(tmp_path / layout.archive, "w:gz") as tar:
        for file in layout.files:
            link = tarfile.TarInfo(f"{layout.folder}/{file}")
            link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
            tar.addfile(link)
    with pytest.raises(ValueError, match="is not a whole archive"):
        cifar.load("cifar10", tmp_path)


@pytest.mark.parametrize("labels", [np.array([0.5, 1.7]), np.array(["a", "b"]), np.array([[1], [2]]), np.array([True])])
def test_labels_that_are_no_list_of_integers_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"data_batch_1: labels are .*, expected a list of integers"):
        cifar._images(np.zeros((len(labels), 3072), np.uint8), labels, "data_batch_1", TEN)


@pytest.mark.parametrize("labels", [-np.ones(2), np.array([np.nan, 1.0]), np.array(["a", "b"]), np.array([11, 1])])
def test_street_numbers_are_digits(tmp_path: Path, labels: np.ndarray) -> None:
    savemat(tmp_path / "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": labels.reshape(-1, 1)})
    with pytest.raises(ValueError, match="y holds something else than the digits"):
        ood.load_svhn(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "empty"])
def test_damaged_street_numbers_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "test_32x32.mat"
    savemat(path, {"X": PIXELS[:2].reshape(32, 32, 3, 2), "y": np.array([[1], [2]])}, do_compression=True)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw if damage == "flipped" else b"")
    with pytest.raises(ValueError, match="is not a readable SVHN file"):
        ood.load_svhn(tmp_path)


@pytest.mark.parametrize("name", ["cifar10-c:fog:3:4", "cifar10-c:fog:\u00b2", "cifar10-c:fog:0", "cifar10-c:fog"])
def test_a_corruption_has_one_severity(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="write cifar10-c:CORRUPTION:SEVERITY"):
        ood._foreign_images(name, tmp_path)


def test_several_arrays_in_one_file_are_no_corruption(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3, np.uint8))
    (tmp_path / "x.npz").rename(tmp_path / "fog.npy")
    with pytest.raises(ValueError, match=r"fog\.npy holds several arrays"):
        ood.load_cifar10_c(tmp_path, "fog", 1)
