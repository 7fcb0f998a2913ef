"""Counter-based random numbers: Philox4x32-10, a pure function of (seed, chain, stream, step, offset).

No generator state exists. Word j of a step is word j mod 4 of the Philox block with

    key     = (seed, chain * 2^16 + stream)
    counter = (j div 4 low, j div 4 high, step low, step high),

so a chain's noise does not depend on how chains are batched, on how parameters are split into tensors, on the number of
threads, or on a resume. Normals come in pairs from two words by Box and Muller (1958).

References
----------
Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 3.3.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


class Stream(IntEnum):
    """What the random words of a step are used for; different streams are independent."""

    LANGEVIN = 0
    MOMENTUM = 1
    INDICATOR = 2
    AUGMENTATION = 3


def random_words(
    seed: int, chain: int, stream: int, step: int, offset: int, count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Uniform 32-bit words offset, ..., offset + count - 1 of one step.

    Parameters
    ----------
    seed : int
        0 <= seed < 2^32.
    chain, stream : int
        0 <= chain, stream < 2^16.
    step, offset : int
        0 <= step, offset < 2^63. The offset is the position of the first parameter in the chain.
    count : int
        Number of words.

    Returns
    -------
    Tensor, shape (count,), int64
        Values in [0, 2^32).
    """
    check_key(seed, chain)
    if not 0 <= stream < 2**16:
        raise ValueError(f"stream is {stream}; it must be an integer with 0 <= stream < 65536")
    first, last = offset // 4, (offset + max(count, 1) + 3) // 4
    block = torch.arange(first, last, dtype=torch.int64, device=device)
    # Rows of `even` are words 2 and 0, of `odd` words 1 and 3: the order in which a round pairs them.
    even = _low_half(torch.stack([torch.full_like(block, step & _MASK), block]))
    odd = _low_half(torch.stack([block >> 32, torch.full_like(block, step >> 32)]))
    multiplier = _column(*_MULTIPLIERS[::-1], device)
    keys = _column(seed, (chain << 16) | stream, device)
    increments = _column(*_KEY_INCREMENTS, device)
    round_keys = _low_half(keys + increments * torch.arange(_ROUNDS, device=device))
    for r in range(_ROUNDS):
        # The 64-bit product may wrap into the sign bit; its two 32-bit halves are right all the same.
        halves = even.view(torch.uint32).to(torch.int64).mul_(multiplier).view(torch.int32).view(2, -1, 2)
        even = (halves[..., 1] ^ odd).bitwise_xor_(round_keys[:, r : r + 1]).flip(0)
        odd = halves[..., 0]
    words = torch.stack([even[1], odd[0], even[0], odd[1]], dim=1).flatten().view(torch.uint32).to(torch.int64)
    return words[offset - 4 * first :][:count]


def _column(first: int, second: int, device: torch.device | str) -> Tensor:
    """Two numbers, shape (2, 1), made on the device: a copy from the host would wait for it."""
    return first + (second - first) * torch.arange(2, device=device).unsqueeze(1)


def _low_half(words: Tensor) -> Tensor:
    """The low 32 bits of int64 words, as int32."""
    return words.view(torch.int32).view(*words.shape, 2)[..., 0].contiguous()


def uniform(words: Tensor) -> Tensor:
    """Words to uniforms in (0, 1], float32: (word + 1/2) / 2^32, rounded."""
    return words.to(torch.float32).mul_(2.0**-32).add_(2.0**-33)


def standard_normal(
    seed: int,
    chain: int,
    step: int,
    offset: int,
    count: int,
    stream: int = Stream.LANGEVIN,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normals for parameters offset, ..., offset + count - 1, by Box and Muller.

    The normals 2k and 2k+1 are sqrt(-2 log u) (cos, sin)(2 pi v) with (u, v) the uniforms 2k and 2k+1.

    Returns
    -------
    Tensor, shape (count,), float32
    """
    start = offset - offset % 2
    length = count + (offset - start)
    length += length % 2
    pairs = uniform(random_words(seed, chain, stream, step, start, length, device)).view(-1, 2)
    radius = pairs[:, 0].log().mul_(-2).sqrt_()
    angle = pairs[:, 1].mul(2 * math.pi)
    normals = torch.stack([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1).flatten()
    return normals[offset - start :][:count]


def rademacher(
    seed: int,
    chain: int,
    step: int,
    offset: int,
    count: int,
    stream: int = Stream.LANGEVIN,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Signs -1 or +1 with probability 1/2 each: sign j is bit j mod 32 of word j div 32.

    They have the first three moments of a standard normal, which is what a Langevin scheme of weak order one needs
    (Kloeden and Platen 1992, section 14.1): the bias of averages is of the order of the step with either noise, but the
    two biases differ. One word serves 32 parameters.

    Returns
    -------
    Tensor, shape (count,), float32
    """
    first = offset // 32
    words = random_words(seed, chain, stream, step, first, (offset + count + 31) // 32 - first, device)
    bits = (words.unsqueeze(1) >> torch.arange(32, device=device)) & 1
    return bits.flatten()[offset - 32 * first :][:count].to(torch.float32).mul_(2).sub_(1)


def choose_seed(seed: int | None, chain: int) -> int:
    """The seed of a key: the one given, checked, else one from torch's default generator.

    So `torch.manual_seed` reproduces what is made after it, and two samplers made one after the other differ.
    """
    if seed is None:
        seed = int(torch.randint(2**32, ()))
    check_key(seed, chain)
    return seed


def check_key(seed: int, chain: int) -> None:
    """Raise ValueError unless 0 <= seed < 2^32 and 0 <= chain < 2^16; TypeError unless they are integers."""
    for name, value in (("seed", seed), ("chain", chain)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}; it must be an integer")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be an integer with 0 <= seed < 2**32")
    if not 0 <= chain < 2**16:
        raise ValueError(f"chain is {chain}; it must be an integer with 0 <= chain < 65536")
