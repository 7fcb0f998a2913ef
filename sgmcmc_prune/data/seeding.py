"""A random generator from a purpose and a few integers."""

import hashlib
import operator

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
    key = ":".join([purpose, *(str(operator.index(number)) for number in numbers)])
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
