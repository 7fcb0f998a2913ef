"""A random generator from a purpose and a few integers."""

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seeded_generator(purpose: str, *numbers: int) -> torch.Generator:
    """Make a CPU generator that depends on its arguments alone.

    The seed is the first 64 bits (little-endian) of the BLAKE2b hash of `"purpose:number:number..."`, so that nearby
    seeds, chains and epochs have unrelated streams, on every machine and in every process. PyTorch's CPU generator
    starts from the low 32 bits of a seed: two streams collide with a chance of 2^-32, which costs a repeated
    permutation and nothing else.

    Parameters
    ----------
    purpose : str
        What the numbers are drawn for; different purposes have different streams.
    *numbers : int
        Any integers, such as a seed, a chain and an epoch.

    Returns
    -------
    torch.Generator

    Raises
    ------
    TypeError
        If a number is not an integer.
    """
    return torch.Generator().manual_seed(_hashed(purpose, *numbers))


@contextmanager
def torch_seeded(device: torch.device, purpose: str, *numbers: int) -> Iterator[None]:
    """Have torch's own generator of a device (that of dropout) depend on the arguments alone, then restore it.

    Parameters
    ----------
    device : torch.device
    purpose, *numbers
        As in `seeded_generator`.
    """
    generator = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    before = generator.get_state()
    generator.manual_seed(_hashed(purpose, *numbers))
    try:
        yield
    finally:
        generator.set_state(before)


def _hashed(purpose: str, *numbers: int) -> int:
    key = ":".join([purpose, *(str(operator.index(number)) for number in numbers)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
