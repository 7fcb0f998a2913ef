"""Augmentation: a pure function of (seed, chain, step), and exactly the crops, flips and erasures it says."""

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.data.augmentation import (
    WORDS,
    Augmentation,
    below,
    crop_flip,
    crop_flip_erase,
    resized_crop_flip,
)
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.noise import Stream, random_words

BLACK = torch.tensor([-1.0, -2.0, -3.0])
TOP = 2**32 - 1


def numbered(n: int, side: int = 8) -> Tensor:
    """Images in which every pixel has its own value above every black."""
    return torch.arange(n * 3 * side * side, dtype=torch.float32).view(n, 3, side, side)


def words(n: int, **columns: int) -> Tensor:
    """A table of words: zero except for the named columns."""
    names = ("flip", "row", "column", "erase", "area", "aspect", "erase_row", "erase_column")
    table = torch.zeros(n, WORDS, dtype=torch.int64)
    for name, value in columns.items():
        table[:, names.index(name)] = value
    return table


def padded(images: Tensor) -> Tensor:
    n, _, h, w = images.shape
    canvas = BLACK.view(1, 3, 1, 1).expand(n, 3, h + 8, w + 8).clone()
    canvas[:, :, 4:-4, 4:-4] = images
    return canvas


@pytest.mark.parametrize("row", range(9))
@pytest.mark.parametrize("flip", [0, 1])
def test_crop_flip_is_a_window_of_the_padded_image(row: int, flip: int) -> None:
    images, column = numbered(2), 8 - row
    # The smallest word whose share of 2^32 reaches row / 9, and so on.
    table = words(2, row=-(-row * 2**32 // 9), column=-(-column * 2**32 // 9), flip=flip * 2**31)
    expected = padded(images)[:, :, row : row + 8, column : column + 8]
    expected = expected.flip(3) if flip else expected
    assert torch.equal(crop_flip(images, table, 8, BLACK), expected)


def test_crop_from_a_larger_square() -> None:
    images = numbered(1, 12)
    assert torch.equal(crop_flip(images, words(1, row=TOP, column=TOP), 8, BLACK), padded(images)[:, :, 12:, 12:])


def test_every_offset_and_both_flips_occur_equally_often() -> None:
    """Chi-square of 9 x 9 x 2 = 162 cells over 32,400 draws, fixed seed: beyond 236.4 by chance in 1 of 10,000."""
    augment = Augmentation("crop_flip", 8, BLACK, seed=3, chain=1)
    table = torch.cat([_words(augment, step, 400) for step in range(81)])
    cell = (below(table[:, 1], 9) * 9 + below(table[:, 2], 9)) * 2 + below(table[:, 0], 2)
    counts = cell.bincount(minlength=162)
    assert float(((counts - 200.0) ** 2 / 200).sum()) < 236.4


def _words(augment: Augmentation, step: int, n: int) -> Tensor:
    return random_words(augment.seed, augment.chain, Stream.AUGMENTATION, step, 0, WORDS * n).view(-1, WORDS)


@pytest.mark.parametrize("name", ["crop_flip", "crop_flip_erase", "resized_crop_flip"])
def test_pure_function_of_seed_chain_and_step(name: str) -> None:
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first = Augmentation(name, 8, BLACK, seed=1, chain=2)(images, 7)
    assert torch.equal(first, Augmentation(name, 8, BLACK, seed=1, chain=2)(images, 7))
    for other in ({"seed": 2, "chain": 2}, {"seed": 1, "chain": 3}):
        assert not torch.equal(first, Augmentation(name, 8, BLACK, **other)(images, 7))
    assert not torch.equal(first, Augmentation(name, 8, BLACK, seed=1, chain=2)(images, 8))
    # An example's changes depend on its place in the minibatch, not on how many there are.
    part = Augmentation(name, 8, BLACK, seed=1, chain=2)(images[:5], 7)
    torch.testing.assert_close(first[:5], part)


def test_erasing_fills_one_rectangle_of_the_stated_area_with_the_mean() -> None:
    images = torch.ones(500, 3, 32, 32)
    table = _words(Augmentation("crop_flip_erase", 32, BLACK, seed=0, chain=0), 0, 500)
    kept, erased = crop_flip(images, table, 32, BLACK), crop_flip_erase(images, table, 32, BLACK)
    hit = below(table[:, 3], 2).bool()
    assert torch.equal(erased[~hit], kept[~hit])
    for before, after in zip(kept[hit], erased[hit], strict=True):
        rows, columns = (after == 0).all(0).nonzero(as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert height * width == len(rows)
        # Sides are rounded to whole pixels and cut to the image, so the smallest of 2 % is 4 x 5 at the least.
        assert 0.01 < len(rows) / 32**2 < 0.45
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[rows, columns] = False
        assert torch.equal(before[:, outside], after[:, outside])
    assert 200 < int(hit.sum()) < 300


def test_resized_crop_of_everything_is_the_image_itself() -> None:
    images, whole = numbered(1), words(1, area=TOP, aspect=2**31)
    torch.testing.assert_close(resized_crop_flip(images, whole, 8, BLACK), images, rtol=1e-5, atol=1e-3)
    mirrored = words(1, area=TOP, aspect=2**31, flip=2**31)
    torch.testing.assert_close(resized_crop_flip(images, mirrored, 8, BLACK), images.flip(3), rtol=1e-5, atol=1e-3)


def test_resized_crop_keeps_a_linear_picture_linear_and_inside() -> None:
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 64, 64)
    table = _words(Augmentation("resized_crop_flip", 16, BLACK, seed=5, chain=0), 0, 200)
    seen = resized_crop_flip(ramp, table, 16, BLACK)
    assert seen.shape == (200, 3, 16, 16)
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    steps = seen[:, :, :, 1:] - seen[:, :, :, :-1]
    widths = steps.mean((1, 2, 3)).abs() * 16
    # Area from 8 % with aspect from 3/4: the narrowest rectangle is sqrt(.08 * 3/4) = .245 wide.
    assert float(widths.min()) > 0.23
    assert float(widths.max()) < 1.05
    inner = steps[:, :, :, 2:-2]  # away from the border, where the picture is continued by its edge
    torch.testing.assert_close(inner, inner.mean(3, keepdim=True).expand_as(inner), rtol=0, atol=2e-3)


def test_below_is_exact_at_the_ends() -> None:
    ends = torch.tensor([0, 2**31 - 1, 2**31, TOP])
    assert below(ends, 2).tolist() == [0, 0, 1, 1]
    assert below(ends, 9).tolist() == [0, 4, 4, 8]


def test_a_stream_augments_its_batches_by_step() -> None:
    images, labels = numbered(10), torch.arange(10)
    augment = Augmentation("crop_flip", 8, BLACK, seed=1, chain=0)
    plain = MinibatchStream(images, labels, 4, seed=1, chain=0)
    stream = MinibatchStream(images, labels, 4, seed=1, chain=0, transform=augment)
    for step in (0, 5, 2):
        inputs, targets = plain.batch(step)
        assert torch.equal(stream.batch(step)[0], augment(inputs, step))
        assert torch.equal(stream.batch(step)[1], targets)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="augmentation is 'mixup'; choose none or one of crop_flip, crop_flip_erase"):
        Augmentation("mixup", 32, BLACK, seed=0, chain=0)
