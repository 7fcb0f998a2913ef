"""Random crops, flips and erasures of whole minibatches, on their device: a pure function of (seed, chain, step).

An augmented minibatch has no likelihood: the same picture is counted with ever new pixels. Chains that see one sample
from another target than the posterior, and runs record it as a departure.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.noise import Stream, random_words, uniform

#: Random words of each example of a step: columns of the table `words`.
WORDS = 8
_FLIP, _ROW, _COLUMN, _ERASE, _AREA, _ASPECT, _ERASE_ROW, _ERASE_COLUMN = range(WORDS)
_PADDING = 4


class Augmentation:
    """Augments the minibatches of one chain.

    Parameters
    ----------
    name : {"crop_flip", "crop_flip_erase", "resized_crop_flip"}
    side : int
        Height and width of the result.
    black : Tensor, shape (channels,)
        The normalised value of a black pixel, for padding; on the device of the images.
    seed, chain : int
        As in `noise.random_words`.

    Raises
    ------
    ValueError
        If the name is unknown.
    """

    def __init__(self, name: str, side: int, black: Tensor, seed: int, chain: int) -> None:
        if name not in AUGMENTATIONS:
            raise ValueError(f"augmentation is {name!r}; choose none or one of {', '.join(AUGMENTATIONS)}")
        self.function = AUGMENTATIONS[name]
        self.side, self.black, self.seed, self.chain = side, black, seed, chain

    def __call__(self, images: Tensor, step: int, first: int = 0) -> Tensor:
        """Augment images (n, channels, height, width) of a step; example i takes its words 8 i to 8 i + 7.

        `first` is the number of the first image in the minibatch, of which the images may be a part.
        """
        offset, count = WORDS * first, WORDS * len(images)
        words = random_words(self.seed, self.chain, Stream.AUGMENTATION, step, offset, count, images.device)
        return self.function(images, words.view(-1, WORDS), self.side, self.black)


def crop_flip(images: Tensor, words: Tensor, side: int, black: Tensor) -> Tensor:
    """Pad with 4 black pixels, cut a random square out, and mirror half of the images.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    words : Tensor, int64, shape (n, 8)
        Uniform on [0, 2^32).
    side : int
    black : Tensor, shape (channels,)

    Returns
    -------
    Tensor, shape (n, channels, side, side)
        In channels-last layout.
    """
    padded = F.pad(images - black.view(-1, 1, 1), (_PADDING,) * 4) + black.view(-1, 1, 1)
    height, width = padded.shape[2:]
    pixel = torch.arange(side, device=images.device)
    rows = below(words[:, _ROW], height - side + 1)[:, None] + pixel
    columns = below(words[:, _COLUMN], width - side + 1)[:, None] + pixel
    columns = torch.where(below(words[:, _FLIP], 2).bool()[:, None], columns.flip(1), columns)
    example = torch.arange(len(images), device=images.device)
    cut = padded.permute(0, 2, 3, 1)[example[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)


def crop_flip_erase(images: Tensor, words: Tensor, side: int, black: Tensor) -> Tensor:
    """`crop_flip`, then random erasing: a rectangle of the mean colour in half of the images.

    Its area is uniform between 2 and 40 % of the image, its aspect uniform between 0.3 and 1 / 0.3. A rectangle that
    does not fit is cut to fit, where the original draws again.

    Source: Z. Zhong et al., "Random erasing data augmentation", AAAI 2020, algorithm 1.
    """
    images = crop_flip(images, words, side, black)
    u = uniform(words)
    area, aspect = 0.02 + 0.38 * u[:, _AREA], 0.3 + (1 / 0.3 - 0.3) * u[:, _ASPECT]
    erased = below(words[:, _ERASE], 2).bool()[:, None]
    rows = erased & _interval(side, side * (area * aspect).sqrt(), words[:, _ERASE_ROW])
    columns = _interval(side, side * (area / aspect).sqrt(), words[:, _ERASE_COLUMN])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)


def resized_crop_flip(images: Tensor, words: Tensor, side: int, black: Tensor) -> Tensor:
    """Cut a rectangle of random area and aspect out, scale it to a square (bilinear), and mirror half of the images.

    The area is uniform between 8 and 100 % of the image, the logarithm of the aspect uniform between those of 3/4 and
    4/3. A rectangle that does not fit is cut to fit, where the original draws again.

    Source: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """
    u = uniform(words)
    area, aspect = 0.08 + 0.92 * u[:, _AREA], (math.log(4 / 3) * (2 * u[:, _ASPECT] - 1)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    flip = 1 - 2 * below(words[:, _FLIP], 2).float()
    across, down = (1 - width) * (2 * u[:, _COLUMN] - 1), (1 - height) * (2 * u[:, _ROW] - 1)
    zero = torch.zeros_like(width)
    affine = torch.stack([torch.stack([width * flip, zero, across], 1), torch.stack([zero, height, down], 1)], 1)
    grid = F.affine_grid(affine, [*images.shape[:2], side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def below(words: Tensor, count: int) -> Tensor:
    """Words to integers 0, ..., count - 1: floor(word count / 2^32), exact on every device."""
    return (words * count) >> 32


def _interval(side: int, length: Tensor, words: Tensor) -> Tensor:
    """Whether each of `side` positions is in a random interval of the given length: shape (n, side)."""
    length = length.round().clamp(1, side).long()
    start = (words * (side - length + 1)) >> 32
    position = torch.arange(side, device=words.device)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, int, Tensor], Tensor]] = {
    "crop_flip": crop_flip,
    "crop_flip_erase": crop_flip_erase,
    "resized_crop_flip": resized_crop_flip,
}
