"""Group maps: which weights share an indicator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sgmcmc_prune.priors import GROUP_KINDS, GroupMap

LINEAR, CONV = (3, 5), (3, 5, 2, 4)


@pytest.mark.parametrize(
    ("kind", "shape", "groups", "size"),
    [
        ("weight", LINEAR, 15, 1),
        ("kernel", LINEAR, 15, 1),
        ("filter", LINEAR, 3, 5),
        ("node", LINEAR, 3, 5),
        ("input", LINEAR, 5, 3),
        ("weight", CONV, 120, 1),
        ("kernel", CONV, 15, 8),
        ("filter", CONV, 3, 40),
        ("node", CONV, 3, 40),
        ("input", CONV, 5, 24),
    ],
)
def test_number_and_size_of_groups(kind: str, shape: tuple[int, ...], groups: int, size: int) -> None:
    group = GroupMap(kind, shape)
    assert group.num_groups == groups
    assert torch.equal(group.group_size, torch.full((groups,), float(size)))


@pytest.mark.parametrize("shape", [LINEAR, CONV])
@pytest.mark.parametrize(("kind", "axes"), [("filter", (0,)), ("node", (0,)), ("input", (1,)), ("kernel", (0, 1))])
def test_a_group_is_one_index_along_its_axes(kind: str, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Two weights share a group exactly when they agree in the output, the input, or both."""
    group = GroupMap(kind, shape)
    number = group.expand(torch.arange(group.num_groups))
    expected = torch.zeros(shape, dtype=torch.long)
    for axis in axes:
        position = torch.arange(shape[axis]).view([-1 if d == axis else 1 for d in range(len(shape))])
        expected = expected * shape[axis] + position
    assert torch.equal(number, expected)


def test_weight_groups_follow_the_flat_order() -> None:
    w = torch.randn(CONV, generator=torch.Generator().manual_seed(0))
    assert torch.equal(GroupMap("weight", CONV).sum(w), w.flatten())


def group_maps() -> st.SearchStrategy[GroupMap]:
    """Maps of all kinds, and of any index map, on small linear and convolutional shapes."""
    side = st.integers(1, 4)
    shapes = st.one_of(st.tuples(side, side), st.tuples(side, side, side, side))
    kinds = st.builds(GroupMap, st.sampled_from(GROUP_KINDS), shapes)
    indices = st.tuples(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=20))
    return kinds | indices.map(lambda pair: GroupMap.from_index(index_map(*pair)))


def index_map(groups: int, tail: list[int]) -> Tensor:
    """An index vector that uses each of 0..groups-1."""
    return torch.tensor(list(range(groups)) + [i % groups for i in tail])


@settings(max_examples=80, deadline=None)
@given(group_maps(), st.integers(0, 2**31))
def test_sum_and_expand_are_adjoint(group: GroupMap, seed: int) -> None:
    """<sum(x), v> = <x, expand(v)>, and each group counts group_size weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(group.shape, generator=generator, dtype=torch.float64)
    v = torch.randn(group.num_groups, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(group.sum(x) @ v, (x * group.expand(v)).sum(), rtol=1e-10, atol=1e-10)
    assert torch.equal(group.sum(torch.ones(group.shape)), group.group_size)
    assert group.expand(v).shape == group.shape


def test_from_index_groups_the_same_values() -> None:
    group = GroupMap.from_index(torch.tensor([[0, 2, 1], [2, 2, 0]]))
    assert (group.kind, group.shape, group.num_groups) == ("index", (2, 3), 3)
    assert group.group_size.tolist() == [2, 1, 3]
    assert group.sum(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])).tolist() == [33, 4, 26]
    assert group.expand(torch.tensor([5, 6, 7])).tolist() == [[5, 7, 6], [7, 7, 5]]


def test_from_index_reproduces_a_named_kind() -> None:
    named = GroupMap("input", CONV)
    indexed = GroupMap.from_index(named.expand(torch.arange(named.num_groups)).contiguous())
    x = torch.randn(CONV, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(indexed.sum(x), named.sum(x))
    assert torch.equal(indexed.group_size, named.group_size)


@pytest.mark.parametrize("index", [[0, 2, 2], [1, 1, 2], [-1, 0, 1]])
def test_an_index_map_uses_every_group(index: list[int]) -> None:
    with pytest.raises(ValueError, match=r"every value 0\.\.G-1"):
        GroupMap.from_index(torch.tensor(index))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_an_index_map_holds_integers(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="must hold integers"):
        GroupMap.from_index(torch.ones(3).to(dtype))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'channel'; choose one of weight, kernel"):
        GroupMap("channel", LINEAR)


def test_a_weight_with_three_dimensions_has_every_kind_of_group() -> None:
    sizes = {kind: GroupMap(kind, (3, 4, 5)).group_size.tolist() for kind in GROUP_KINDS}
    expected = {"weight": [1] * 60, "kernel": [5] * 12, "filter": [20] * 3, "node": [20] * 3, "input": [15] * 4}
    assert sizes == expected


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_shape_with_fewer_than_two_dimensions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 dimensions or more"):
        GroupMap("node", shape)


def test_an_empty_index_map_is_refused() -> None:
    with pytest.raises(ValueError, match="index map"):
        GroupMap.from_index(torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("kind", [*GROUP_KINDS, "index"])
@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_the_groups_of_a_part_are_those_of_the_whole(kind: str, shape: tuple[int, ...]) -> None:
    """What is left out is zero in the whole: then sums agree, and sizes, which are still those of the whole."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randperm(torch.Size(shape).numel(), generator=generator).view(shape) % 7
    whole = GroupMap.from_index(numbers) if kind == "index" else GroupMap(kind, shape)
    positions = torch.arange(numbers.numel()).view(shape)[[0, 2]][:, [1, 2, 4]]
    part, found = whole.cut(positions)
    values = torch.zeros(numbers.numel())
    values[positions] = torch.rand(positions.shape, generator=generator)
    torch.testing.assert_close(part.sum(values[positions]), whole.sum(values.view(shape))[found])
    assert torch.equal(part.sizes(values), whole.sizes(values)[found])
    assert torch.equal(part.group_size, whole.group_size[found])
    assert torch.equal(
        found[part.expand(torch.arange(part.num_groups))],
        whole.expand(torch.arange(whole.num_groups)).reshape(-1)[positions],
    )
    assert part.shape == tuple(positions.shape)
