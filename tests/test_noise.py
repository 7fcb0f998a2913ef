"""Counter-based noise: published vectors, an independent slow Philox, slicing, and the law of the normals.

A statistical test has a fixed key and states how often it would fail over keys if the code were right.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm
from torch import Tensor

from sgmcmc_prune.noise import Stream, random_words, standard_normal, uniform

exact = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """One block of Philox4x32-10, word by word as in Salmon et al. (2011)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right % 2**32, (left >> 32) ^ c3 ^ k1, left % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def halves(x: int) -> list[int]:
    return [x % 2**32, x >> 32]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_slow_philox_gives_the_published_vectors(counter: str, key: str, words: str) -> None:
    # Random123's known-answer file.
    assert philox([int(c, 16) for c in counter.split()], [int(k, 16) for k in key.split()]) == [
        int(w, 16) for w in words.split()
    ]


def test_the_zero_vector() -> None:
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert random_words(seed=0, chain=0, stream=0, step=0, offset=0, count=4).tolist() == expected


@exact
@given(
    seed=st.integers(0, 2**32 - 1),
    chain=st.integers(0, 2**16 - 1),
    stream=st.integers(0, 2**16 - 1),
    step=st.integers(0, 2**63 - 1),
    offset=st.integers(0, 2**63 - 64),
    count=st.integers(1, 21),
)
def test_words_are_those_of_the_slow_philox(
    seed: int, chain: int, stream: int, step: int, offset: int, count: int
) -> None:
    expected = [
        philox(halves(j // 4) + halves(step), [seed, chain << 16 | stream])[j % 4]
        for j in range(offset, offset + count)
    ]
    assert random_words(seed, chain, stream, step, offset, count).tolist() == expected


def test_uniforms_avoid_zero_and_are_centred() -> None:
    ends = uniform(torch.tensor([0, 2**31, 2**32 - 1]))
    assert ends.dtype == torch.float32
    assert ends.tolist() == [2.0**-33, 0.5, 1.0]


def test_normals_are_box_and_muller_of_the_uniforms() -> None:
    u, v = uniform(random_words(5, 2, Stream.MOMENTUM, 9, 0, 1000)).double().view(-1, 2).T
    radius = torch.sqrt(-2 * torch.log(u))
    expected = torch.stack([radius * torch.cos(2 * torch.pi * v), radius * torch.sin(2 * torch.pi * v)], 1).flatten()
    normals = standard_normal(5, 2, 9, 0, 1000, stream=Stream.MOMENTUM)
    assert normals.dtype == torch.float32
    torch.testing.assert_close(normals.double(), expected, rtol=1e-5, atol=2e-6)


WHOLE = standard_normal(seed=7, chain=1, step=11, offset=0, count=5000)


@exact
@given(cuts=st.lists(st.integers(0, 5000), max_size=6))
def test_normals_do_not_depend_on_how_a_step_is_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), 5000]
    parts = [standard_normal(7, 1, 11, a, b - a) for a, b in itertools.pairwise(ends)]
    assert torch.equal(torch.cat(parts), WHOLE)


def test_a_single_normal_equals_its_place_in_the_whole() -> None:
    assert all(standard_normal(7, 1, 11, i, 1).item() == WHOLE[i].item() for i in range(64))


def test_an_empty_slice_is_empty() -> None:
    assert [standard_normal(0, 0, 0, offset, 0).shape for offset in range(5)] == [(0,)] * 5


def test_moments_of_the_normals() -> None:
    """Four moments, each two-sided with Bonferroni: false alarms at 1e-3."""
    n = 200_000
    x = standard_normal(seed=1, chain=0, step=0, offset=0, count=n).double()
    observed = np.array([float((x**k).mean()) for k in (1, 2, 3, 4)])
    expected, variance = np.array([0, 1, 0, 3]), np.array([1, 2, 15, 96])
    assert np.abs((observed - expected) / np.sqrt(variance / n)).max() < norm.isf(1e-3 / 2 / 4)


def test_distribution_of_the_normals() -> None:
    """Kolmogorov and Smirnov: false alarms at 1e-3."""
    x = standard_normal(seed=2, chain=3, step=4, offset=0, count=50_000)
    assert kstest(x.numpy(), "norm").pvalue > 1e-3


def largest_correlation(rows: Tensor) -> tuple[float, int]:
    """Largest |z| over the pairs of rows, and the number of pairs."""
    z = np.corrcoef(rows.double().numpy())[np.triu_indices(len(rows), 1)] * np.sqrt(rows.shape[1])
    return float(np.abs(z).max()), len(z)


@pytest.mark.parametrize("power", [1, 2])
def test_seeds_chains_steps_and_streams_are_uncorrelated(power: int) -> None:
    """All pairs of twelve keys, of the normals and of their squares, with Bonferroni: false alarms at 1e-3 each."""
    keys = [(s, c, t, r) for s in (0, 1) for c in (0, 1) for t in (0, 1, 2**32) for r in (Stream.LANGEVIN,)]
    keys[::4] = [(s, c, t, Stream.MOMENTUM) for s, c, t, _ in keys[::4]]
    rows = torch.stack([standard_normal(s, c, t, 0, 20_000, stream=r) for s, c, t, r in keys])
    largest, pairs = largest_correlation(rows**power)
    assert largest < norm.isf(1e-3 / 2 / pairs)


@pytest.mark.parametrize("stream", list(Stream))
def test_streams_of_one_step_differ(stream: Stream) -> None:
    others = [s for s in Stream if s != stream]
    mine = random_words(3, 0, stream, 5, 0, 1000)
    assert all(int((random_words(3, 0, s, 5, 0, 1000) == mine).sum()) == 0 for s in others)


@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_are_uncorrelated(power: int) -> None:
    """Lags 1 to 4, with Bonferroni: false alarms at 1e-3. The squares see a radius shared within a pair."""
    x = standard_normal(seed=4, chain=0, step=0, offset=0, count=100_000) ** power
    z = [float(np.corrcoef(x[:-lag], x[lag:])[0, 1]) * (len(x) - lag) ** 0.5 for lag in (1, 2, 3, 4)]
    assert max(map(abs, z)) < norm.isf(1e-3 / 2 / 4)


@pytest.mark.parametrize(
    ("seed", "chain", "message"),
    [(-1, 0, "seed is -1"), (2**32, 0, "seed is 4294967296"), (0, -1, "chain is -1"), (0, 2**16, "chain is 65536")],
)
def test_a_key_out_of_range_is_refused(seed: int, chain: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        standard_normal(seed, chain, 0, 0, 1)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = standard_normal(1, 2, 3, 4, 100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(standard_normal(1, 2, 3, 4, 100), first)


def test_the_number_of_threads_changes_nothing() -> None:
    threads, many = torch.get_num_threads(), 100_001
    try:
        torch.set_num_threads(1)
        one = standard_normal(1, 2, 3, 4, many)
        torch.set_num_threads(3)
        assert torch.equal(standard_normal(1, 2, 3, 4, many), one)
    finally:
        torch.set_num_threads(threads)
