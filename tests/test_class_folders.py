"""Pictures, names and folders that are legal but unusual: read as a viewer shows them, or named and refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgmcmc_prune import data
from sgmcmc_prune.data.class_folders import list_classes, list_pictures, read_picture

HALVES = np.zeros((32, 32, 3), np.uint8)
HALVES[:16] = 200  # bright above, dark below


def corners(path: Path) -> list[int]:
    """Red at the four corners: above left, above right, below left, below right."""
    pixels = read_picture(path, 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    return [int(pixels[y, x, 0]) for y in (2, 29) for x in (2, 29)]


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_shows_the_same_picture(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tiff"
    Image.fromarray(HALVES // 200 * 255).convert(mode).save(path)
    assert corners(path) == pytest.approx([255, 255, 0, 0], abs=3)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [200, 200, 0, 0]),
        (2, [200, 200, 0, 0]),
        (3, [0, 0, 200, 200]),
        (4, [0, 0, 200, 200]),
        (5, [200, 0, 200, 0]),
        (6, [0, 200, 0, 200]),
        (7, [0, 200, 0, 200]),
        (8, [200, 0, 200, 0]),
        (99, [200, 200, 0, 0]),
    ],
)
def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path, orientation: int, expected: list[int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(HALVES).save(tmp_path / "x.png", exif=exif)
    assert corners(tmp_path / "x.png") == expected


@pytest.mark.parametrize(("type", "suffix"), [(np.uint16, "png"), (np.uint16, "tiff"), (np.int32, "tiff")])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, type: type, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray((HALVES[:, :, 0].astype(type) + 1) * 255).save(path)
    assert corners(path) == pytest.approx([200, 200, 1, 1], abs=1)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    picture = Image.fromarray(HALVES).convert("RGBA")
    picture.putalpha(Image.fromarray(255 - HALVES[:, :, 0]))
    picture.save(tmp_path / "x.png")
    assert corners(tmp_path / "x.png") == pytest.approx([243, 243, 0, 0], abs=1)  # 55 of 200 and 200 of 255
    palette = Image.fromarray(HALVES).convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    palette.save(tmp_path / "y.png", transparency=bytes([0, 0]))
    assert corners(tmp_path / "y.png") == [255] * 4


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png is not a readable picture"):
        read_picture(tmp_path / "x.png", 32)


@pytest.mark.parametrize("pixels", [HALVES[:, :, 0] / np.float32(200), HALVES[:, :, 0].astype(np.int32) * 10**6])
def test_pixels_of_no_known_range_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match=r"x\.tiff is not a readable picture .*no known range"):
        read_picture(tmp_path / "x.tiff", 32)


def test_one_pixel_and_one_row_are_pictures(tmp_path: Path) -> None:
    for name, size in (("dot.png", (1, 1)), ("row.png", (900, 1))):
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / name)
        assert (read_picture(tmp_path / name, 32) == 9).all()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes with unusual names and one picture each, in both splits."""
    for split in ("train", "val"):
        for name in ("[a] b", "ü.png"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(HALVES).save(tmp_path / split / name / "Ä 1.JPG")
    return tmp_path


def count(folders: Path) -> int:
    """Training pictures of the classes."""
    return len(list_pictures(folders / "train", list_classes(folders / "train"))[0])


def test_hidden_names_are_neither_classes_nor_pictures(folders: Path) -> None:
    (folders / "train" / ".ipynb_checkpoints").mkdir()
    (folders / "train" / "[a] b" / ".thumbnails").mkdir()
    for name in ("._Ä 1.JPG", ".thumbnails/x.png"):
        (folders / "train" / "[a] b" / name).write_bytes(b"\0\5\x16\7")
    assert list_classes(folders / "train") == ("[a] b", "ü.png")
    assert count(folders) == 2
    assert data.load("imagenet", folders).num_classes == 2


def test_pictures_below_their_class_and_of_other_formats_count(folders: Path) -> None:
    inside = folders / "train" / "[a] b"
    (inside / "images.jpg").mkdir()
    Image.fromarray(HALVES).save(inside / "images.jpg" / "x.JPEG")
    for suffix in ("webp", "bmp", "TIF", "ppm"):
        Image.fromarray(HALVES).save(inside / f"x.{suffix}")
    (inside / "readme.txt").touch()
    assert count(folders) == 7


def test_a_link_to_a_class_is_followed(folders: Path) -> None:
    os.symlink(folders / "train" / "ü.png", folders / "train" / "z")
    assert count(folders) == 3


@pytest.mark.parametrize("kind", ["broken link", "empty"])
def test_pictures_of_which_nothing_can_be_read_are_refused_when_the_data_are_opened(folders: Path, kind: str) -> None:
    path = folders / "train" / "ü.png" / "x.png"
    os.symlink("nowhere", path) if kind == "broken link" else path.touch()
    with pytest.raises(ValueError, match=r"ü\.png/x\.png is not a readable picture: it is empty, or a link to nothing"):
        data.load("imagenet", folders)


def test_one_class_is_no_classification(folders: Path) -> None:
    for split in ("train", "val"):
        (folders / split / "[a] b" / "Ä 1.JPG").unlink()
        (folders / split / "[a] b").rmdir()
    with pytest.raises(ValueError, match=r"1 training and 1 test images of 1 classes; it takes .* two classes"):
        data.load("imagenet", folders)
