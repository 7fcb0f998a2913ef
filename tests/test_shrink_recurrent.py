"""Units of recurrent layers, cut under random masks: the outputs of the masked network, for sequences of any length."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_shrink import make_random, masked, outputs
from test_shrink_foreign import random_mask
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.models.recurrent import directions
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.conditional.members import members_of
from sgmcmc_prune.pruning.conditional.prune import layers_of
from sgmcmc_prune.pruning.shrink import Shrunk, shrink, why_not_shrinkable
from sgmcmc_prune.store.network import About, load_network, save_network
from sgmcmc_prune.store.program import read_program, why_no_onnx, write_program

WIDTH = 7


class Sequences(nn.Module):
    """A linear layer at each step, a recurrent layer, what is taken of its states, and a reader of that."""

    def __init__(self, kind: type[nn.RNNBase], take: str, head: type[nn.RNNBase] | None = None, **options: Any) -> None:
        super().__init__()
        options = {"batch_first": True, **options}
        self.take, self.first, self.rnn = take, nn.Linear(4, 6), kind(6, WIDTH, **options)
        width = WIDTH * (1 + self.rnn.bidirectional) * (2 if take == "both states" else 1)
        self.head = nn.Linear(width, 5) if head is None else head(width, 5, batch_first=True)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if not self.rnn.batch_first:
            x = x.transpose(0, 1)
        if self.take == "all":
            y = self.rnn(x)[0]
        elif self.take == "mean":
            y = self.rnn(x)[0].mean(1)
        elif self.take == "both states":
            _, (h, c) = self.rnn(x)
            y = torch.cat([h[-1], c[-1]], 1)
        elif self.take == "both ways":
            _, h = self.rnn(x)
            y = h[-2:].transpose(0, 1).flatten(1)
        else:
            _, h = self.rnn(x)
            y = h[-1]
        if isinstance(self.head, nn.RNNBase):
            return self.last(self.head(y)[0][:, -1])
        return self.last(torch.tanh(self.head(y)))


NETWORKS: dict[str, Callable[[], Sequences]] = {
    "rnn": lambda: Sequences(nn.RNN, "mean"),
    "rnn, relu, no bias": lambda: Sequences(nn.RNN, "mean", nonlinearity="relu", bias=False),
    "gru": lambda: Sequences(nn.GRU, "state"),
    "gru, deep, steps first": lambda: Sequences(nn.GRU, "state", num_layers=2, batch_first=False),
    "gru, both ways, no bias": lambda: Sequences(nn.GRU, "both ways", bidirectional=True, bias=False),
    "lstm": lambda: Sequences(nn.LSTM, "both states"),
    "lstm, deep, both ways": lambda: Sequences(nn.LSTM, "mean", num_layers=2, bidirectional=True),
    "lstm, deep, no bias": lambda: Sequences(nn.LSTM, "mean", num_layers=3, bias=False, dropout=0.2),
    "lstm into gru": lambda: Sequences(nn.LSTM, "all", head=nn.GRU),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def readers(model: Sequences, depth: int, way: int) -> dict[str, Tensor]:
    """By name of a weight of the next layer, the columns that read each unit of a depth and direction."""
    ways, copies = directions(model.rnn), 2 if model.take == "both states" else 1
    at = torch.arange(WIDTH) + way * WIDTH
    if depth + 1 < len(ways):
        return {f"rnn.weight_ih_{end}": at for end in ways[depth + 1]}
    columns = torch.stack([at + WIDTH * len(ways[0]) * copy for copy in range(copies)])
    return {"head.weight_ih_l0" if isinstance(model.head, nn.RNNBase) else "head.weight": columns}


def let_nobody_read(model: Sequences, mask: masks.Mask, depth: int, way: int, units: Tensor) -> None:
    """Mask all weights that read some units, but for those by which they read one another."""
    own = f"rnn.weight_hh_{directions(model.rnn)[depth][way]}"
    rows = torch.zeros(WIDTH, dtype=torch.bool)
    rows[units] = True
    rows = rows.repeat(len(mask[own]) // WIDTH)
    mask[own][:, units] &= rows[:, None]
    for name, columns in readers(model, depth, way).items():
        mask[name][:, columns[..., units].flatten()] = False


@torch.no_grad()
def make_zero(model: Sequences, mask: masks.Mask, end: str, units: Tensor) -> None:
    """Mask the rows that drive some units, and take their biases."""
    gate = {"GRU": 2, "LSTM": 2}.get(model.rnn.mode, 0)
    for part in ("ih", "hh"):
        mask[f"rnn.weight_{part}_{end}"][units + gate * WIDTH] = False
        if model.rnn.bias:
            getattr(model.rnn, f"bias_{part}_{end}")[units + gate * WIDTH] = 0


def all_kept(model: nn.Module) -> masks.Mask:
    return {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}


def random_units(model: Sequences) -> masks.Mask:
    """Units that nobody reads, and units that stay zero, at random; other weights, too."""
    mask = random_mask(model) if bool(torch.rand(1) < 0.5) else all_kept(model)
    for depth, ends in enumerate(directions(model.rnn)):
        for way, end in enumerate(ends):
            chance = torch.rand(WIDTH)
            let_nobody_read(model, mask, depth, way, (chance < 0.3).nonzero().flatten())
            make_zero(model, mask, end, (chance > 0.7).nonzero().flatten())
    return mask


def check(name: str, count: int, dtype: torch.dtype, tolerance: float) -> int:
    """Cut under so many masks, and run on longer sequences; return how many recurrent layers became narrower."""
    narrower = 0
    for seed in range(count):
        torch.manual_seed(seed)
        model = make_random(NETWORKS[name]()).to(dtype)
        mask = random_units(model)
        small = shrink(model, mask, torch.randn(2, 5, 4, dtype=dtype)).model
        for length in (1, 5, 9):
            inputs = torch.randn(4, length, 4, dtype=dtype)
            expected, found = outputs(masked(model, mask), inputs), outputs(small, inputs)
            scale = float(expected.abs().max())
            assert float((found - expected).abs().max()) <= tolerance * (scale + 1e-3), (name, seed, length)
        narrower += small.rnn.hidden_size < WIDTH
        assert num_parameters(small) <= num_parameters(model)
    return narrower


@pytest.mark.parametrize("name", NETWORKS)
def test_cut_units_are_masked_units_under_random_masks(name: str) -> None:
    assert check(name, 4, torch.float64, 1e-10) > 0
    check(name, 2, torch.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_cut_units_are_masked_units_under_two_hundred_random_masks(name: str) -> None:
    assert check(name, 200, torch.float64, 1e-10) > 100
    check(name, 200, torch.float32, 1e-5)


def cut(model: nn.Module, mask: masks.Mask) -> Shrunk:
    """Cut, and compare on other inputs."""
    make_random(model).double()
    shrunk, inputs = shrink(model, mask, torch.randn(2, 5, 4).double()), torch.randn(6, 8, 4).double()
    expected = outputs(masked(model, mask), inputs)
    torch.testing.assert_close(outputs(shrunk.model, inputs), expected, rtol=1e-10, atol=1e-10)
    return shrunk


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_units_that_nobody_else_reads_go(name: str) -> None:
    """They may read one another, and have biases: what they are does not matter."""
    model = NETWORKS[name]()
    mask = all_kept(model)
    let_nobody_read(model, mask, 0, 0, torch.tensor([0, 1, 5]))
    small = cut(model, mask).model
    assert (small.rnn.hidden_size, small.rnn.input_size) == (4, 6)
    assert small.head.in_features == 4 * (2 if name == "lstm" else 1)


@pytest.mark.parametrize("name", ["rnn, relu, no bias", "gru", "lstm"])
def test_units_that_are_zero_at_every_step_go(name: str) -> None:
    """Whatever their gates read; and those that are driven by such units alone."""
    model = make_random(NETWORKS[name]())
    mask = all_kept(model)
    make_zero(model, mask, "l0", torch.tensor([0, 1, 5]))
    gate = 0 if name.startswith("rnn") else 2 * WIDTH
    mask["rnn.weight_hh_l0"][gate, 1] = True  # unit 0 is driven by unit 1
    shrunk = shrink(model, mask, torch.randn(2, 5, 4))
    assert shrunk.model.rnn.hidden_size == 4
    inputs = torch.randn(6, 8, 4)
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn"])
def test_a_unit_that_reads_nothing_but_has_a_bias_stays(name: str) -> None:
    """It changes from step to step, so that no bias of another layer can stand for it."""
    model = NETWORKS[name]()
    mask = all_kept(model)
    for part in ("ih", "hh"):
        mask[f"rnn.weight_{part}_l0"].view(-1, WIDTH, mask[f"rnn.weight_{part}_l0"].shape[1])[:, 2] = False
    assert cut(model, mask).model.rnn.hidden_size == WIDTH


def test_constants_before_a_recurrent_layer_go_into_its_biases() -> None:
    model = NETWORKS["gru, deep, steps first"]()
    mask = all_kept(model)
    mask["first.weight"][[1, 4]] = False
    small = cut(model, mask).model
    assert (small.first.out_features, small.rnn.input_size, small.rnn.hidden_size) == (4, 4, WIDTH)


def test_as_many_units_stay_at_every_depth_and_in_both_directions() -> None:
    """One tensor holds all their states, so that the widest decides."""
    model = NETWORKS["lstm, deep, both ways"]()
    mask = all_kept(model)
    for (depth, way), count in zip([(0, 0), (0, 1), (1, 0), (1, 1)], [5, 2, 3, 4], strict=True):
        let_nobody_read(model, mask, depth, way, torch.arange(count))
    small = cut(model, mask).model
    assert small.rnn.hidden_size == WIDTH - 2
    assert small.rnn.weight_ih_l1.shape == (4 * (WIDTH - 2), 2 * (WIDTH - 2))


def test_a_recurrent_layer_that_nobody_reads_keeps_a_unit() -> None:
    model = NETWORKS["gru, deep, steps first"]()
    mask = all_kept(model)
    mask["head.weight"][:] = False
    small = cut(model, mask).model
    assert (small.rnn.hidden_size, small.rnn.input_size, small.first.out_features) == (1, 1, 1)


class Other(nn.Module):
    """A recurrent layer in a use that cannot be followed."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        options = {"proj_size": 3} if use == "projected" else {}
        self.rnn = nn.LSTM(4, 6, batch_first=True, bidirectional=use == "halves", **options)
        self.second = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(3 if use == "projected" else 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.use == "twice":
            return self.head((self.rnn(x)[0] + self.rnn(-x)[0])[:, -1])
        if self.use == "given":
            zeros = x.new_zeros(1, x.shape[0], 6)
            return self.head(self.rnn(x, (zeros, zeros))[0][:, -1])
        if self.use == "handed on":
            return self.head(self.second(x, self.rnn(x)[1])[0][:, -1])
        if self.use == "halves":
            states = self.rnn(x)[0]
            return self.head(states[:, -1, :6] + states[:, 0, 6:])
        if self.use == "output":
            return self.rnn(x)[0]
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("twice", "'rnn' (LSTM) stays as it is: it, or a weight of it, is used in several places"),
        ("given", "'rnn' (LSTM) stays as it is: it is given its first state"),
        ("handed on", "'second' (LSTM) stays as it is: it is given its first state"),
        ("projected", "'rnn' (LSTM) stays as it is: it gives projections of its states (proj_size)"),
        ("halves", "'getitem"),
        ("output", "its output goes to 'output', the network's own"),
    ],
)
def test_recurrent_layers_that_cannot_be_followed_stay_and_the_reason_is_said(use: str, reason: str) -> None:
    model = Other(use)
    mask = all_kept(model)
    mask["rnn.weight_hh_l0"][:, :3] = False
    if use == "projected":
        mask["rnn.weight_hh_l0"][:] = False
    else:
        mask["head.weight"][:, :3] = False
    shrunk = cut(model, mask)
    assert shrunk.model.rnn.hidden_size == 6
    assert reason in shrunk.obstacles["rnn"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0"])
def test_a_recurrent_layer_with_a_computed_weight_stays(
    kind: type[nn.RNNBase], norm: Callable[..., nn.Module], weight: str
) -> None:
    model = Sequences(kind, "mean")
    norm(model.rnn, weight)
    assert why_not_shrinkable(model, torch.randn(2, 5, 4)) == ""
    mask = all_kept(model)
    mask["head.weight"][:, :3] = False  # three units that nobody reads
    mask["last.weight"][:, 1:3] = False
    shrunk, inputs = shrink(model, mask, torch.randn(2, 5, 4)), torch.randn(3, 8, 4)
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))
    assert "a weight of it is computed from other parameters" in shrunk.obstacles["rnn"]
    assert (shrunk.model.rnn.hidden_size, shrunk.model.head.out_features) == (WIDTH, 3)


def test_units_that_a_recurrent_layer_reads_have_no_joint_evidence() -> None:
    """There is no curvature of its weights."""
    model = NETWORKS["gru"]()
    (found,) = members_of(model, {"first.weight": GroupMap("node", (6, 4))}, torch.randn(3, 5, 4)).values()
    with pytest.raises(ValueError, match=r"'rnn\.weight_ih_l0' belongs to no layer whose curvature is known"):
        layers_of(model, {found.layer})


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_recurrent_network_is_read_from_its_file(name: str, tmp_path: Path) -> None:
    model = make_random(NETWORKS[name]())
    small = shrink(model, random_units(model), torch.randn(2, 5, 4)).model
    assert small.rnn.hidden_size < WIDTH
    inputs, about = torch.randn(4, 5, 4), About("user:make", None, (5, 4), 2, (0.0,), (1.0,))
    save_network(tmp_path / "net.safetensors", small, about)
    read, _ = load_network(tmp_path / "net.safetensors", lambda input_shape, num_classes: NETWORKS[name]())
    for count, length in ((4, 5), (1, 1), (7, 11)):
        others = torch.randn(count, length, 4)
        torch.testing.assert_close(outputs(read, others), outputs(small, others), rtol=0, atol=0)
    assert repr(read) == repr(small)
    again = shrink(copy.deepcopy(read), {}, inputs[:2]).model
    torch.testing.assert_close(outputs(again, inputs), outputs(small, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_recurrent_network_is_a_program(name: str, ending: str, tmp_path: Path) -> None:
    if ending == ".onnx" and (reason := why_no_onnx()):
        pytest.skip(reason)
    model = make_random(NETWORKS[name]())
    small = shrink(model, random_units(model), torch.randn(2, 5, 4)).model
    path, about = tmp_path / f"net{ending}", About("user:make", None, (5, 4), 2, (0.0,), (1.0,))
    write_program(path, small, about)
    read, _ = read_program(path)
    for count in (1, 3):
        inputs = torch.randn(count, 5, 4)
        torch.testing.assert_close(outputs(read, inputs), outputs(small, inputs), rtol=1e-5, atol=1e-6)
    if ending == ".pt2":  # it is refused, and no other number comes out
        with pytest.raises(AssertionError, match="Guard failed"):
            read(torch.randn(3, 6, 4))
