"""Curvatures by name against what they are defined as, computed by automatic differentiation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods import categorical, gaussian
from sgmcmc_prune.likelihoods.base import Likelihood
from sgmcmc_prune.models.layers import Layer
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning.conditional.blocks import Blocks
from sgmcmc_prune.pruning.conditional.curvature import curvature, make
from sgmcmc_prune.pruning.conditional.prune import layers_of

Examples = tuple[Tensor, Tensor]


def blocks(
    model: nn.Module, examples: Examples, name: str, likelihood: Likelihood, **options: Any
) -> dict[str, Blocks]:
    draws = [network_state(model)]
    start = make(name, options)
    return curvature(model, draws, examples, layers_of(model), start, likelihood=likelihood, num_data=len(examples[0]))


def dense(found: Blocks) -> Tensor:
    """(B, d, d) without a prior."""
    b, d = len(found.scale), found.matrix.shape[1]
    return found.precision(torch.zeros(b, d, dtype=torch.float64), slice(None))


def regression(inputs: tuple[int, ...] = (3,)) -> Examples:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, *inputs, generator=generator, dtype=torch.float64)
    return x, torch.randn(12, 1, generator=generator, dtype=torch.float64)


def per_example(model: nn.Module, examples: Examples, name: str, likelihood: Likelihood | None = None) -> Tensor:
    """Gradients of each example with respect to one parameter: of the output, or of the negative log-likelihood."""
    found = []
    for x, y in zip(*examples, strict=True):
        out = model(x[None])
        value = out.sum() if likelihood is None else likelihood(out, y[None]).sum()
        found.append(torch.autograd.grad(value, dict(model.named_parameters())[name])[0].flatten())
    return torch.stack(found)


def test_gram_of_a_linear_layer_is_that_of_its_inputs() -> None:
    x, y = regression()
    found = dense(blocks(nn.Linear(3, 2).double(), (x, y.expand(12, 2)), "gram", gaussian())["weight"])
    ones = torch.cat([x, torch.ones(12, 1).double()], 1)
    torch.testing.assert_close(found, (ones.T @ ones).expand(2, 4, 4))


@pytest.mark.parametrize("stride", [1, 2])
def test_gram_of_a_convolution_is_the_curvature_of_half_its_squared_outputs(stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, stride=stride, bias=False).double()
    x, y = regression((2, 5, 5))
    found = dense(blocks(nn.Sequential(conv, nn.Flatten()), (x, y), "gram", gaussian())["0.weight"])

    def half_square(weight: Tensor) -> Tensor:
        return nn.functional.conv2d(x, weight, stride=stride, padding=1).square().sum() / 2

    hessian = torch.autograd.functional.hessian(half_square, conv.weight).reshape(3, 18, 3, 18)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.stack([hessian[o, :, o] for o in range(3)]))


@pytest.mark.parametrize("name", ["ggn", "kfac"])
def test_a_linear_model_has_its_exact_curvature(name: str) -> None:
    x, y = regression()
    found = dense(blocks(nn.Linear(3, 1).double(), (x, y), name, gaussian(0.25))["weight"])
    ones = torch.cat([x, torch.ones(12, 1).double()], 1)
    torch.testing.assert_close(found, (ones.T @ ones / 0.25)[None])


def test_ggn_is_the_gauss_newton_matrix_within_each_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 1)).double()
    x, y = regression((1, 5, 5))
    found = dense(blocks(model, (x, y), "ggn", gaussian())["0.weight"])
    weight, bias = per_example(model, (x, y), "0.weight"), per_example(model, (x, y), "0.bias")
    for row in range(2):
        each = torch.cat([weight.view(12, 2, 9)[:, row], bias[:, row : row + 1]], 1)
        torch.testing.assert_close(found[row], each.T @ each)


def test_monte_carlo_signs_are_unbiased_for_classes() -> None:
    """Means over 400 sets of signs, within five standard errors: a false alarm in about 1e-5 of seeds (36 numbers)."""
    torch.manual_seed(0)
    model, x = nn.Linear(2, 3, bias=False).double(), regression((2,))[0]
    examples = x, torch.arange(12) % 3
    start, layers = make("ggn", {}), layers_of(model)
    p = model(x).softmax(1)
    exact = torch.einsum("no,ni,nj->oij", p * (1 - p), x, x)
    draws = torch.stack(
        [
            dense(
                curvature(
                    model, [network_state(model)], examples, layers, start, likelihood=categorical, num_data=12, seed=s
                )["weight"]
            )
            for s in range(400)
        ]
    )
    error = draws.std(0) / 20
    assert bool(((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all())


def test_one_block_of_fisher_is_the_whole_empirical_fisher_matrix() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    examples = regression()[0], torch.arange(12) % 3
    each = per_example(model, examples, "0.weight", categorical)
    whole = dense(blocks(model, examples, "fisher", categorical, size=12)["0.weight"])
    torch.testing.assert_close(whole[0], each.T @ each)
    parts = dense(blocks(model, examples, "fisher", categorical, size=5)["0.weight"])
    assert parts.shape == (3, 5, 5)
    torch.testing.assert_close(parts[1], (each.T @ each)[5:10, 5:10])
    torch.testing.assert_close(parts[2, :2, :2], (each.T @ each)[10:, 10:])
    assert bool((parts[2, 2:] == 0).all())


def test_a_curvature_that_fits_no_memory_is_refused() -> None:
    layer = Layer(nn.Linear(5000, 5000, device="meta"), "weight", "bias")
    with pytest.raises(ValueError, match="take 1000 GB; choose kfac or gram"):
        make("ggn", {})(layer)
    make("ggn", {"size": 10})(layer)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fisher", {"size": -1}, "size of a curvature is -1"),
        ("ggn", {"size": "x"}, "size of a curvature is 'x'"),
        ("gram", {"damp": -1.0}, "damp of a curvature is -1.0"),
        ("gram", {"damp": float("nan")}, "damp of a curvature is nan"),
    ],
)
def test_a_bad_option_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, options)(Layer(nn.Linear(3, 2), "weight", "bias"))


def test_of_more_draws_than_examples_some_see_none() -> None:
    """Five draws and two examples: the draws 0 and 3 see one each."""
    net, x = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), torch.randn(2, 2)
    draws = []
    for seed in range(5):
        torch.manual_seed(seed)
        draws.append({n: torch.randn_like(v) for n, v in net.state_dict().items()})
    settings: dict[str, Any] = {"likelihood": gaussian(1.0), "num_data": 2}
    found, expected = (
        curvature(net, chosen, (x, torch.zeros(2, 1)), layers_of(net), make("gram", {}), **settings)["1.weight"]
        for chosen in (draws, [draws[0], draws[3]])
    )
    torch.testing.assert_close(found.matrix, expected.matrix)
    assert bool((found.matrix != 0).all())


def test_a_curvature_is_averaged_over_the_draws() -> None:
    """Two draws share the examples, and stand for all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = regression()
    draws = [{n: scale * v for n, v in network_state(model).items()} for scale in (1, 2)]
    found = curvature(model, draws, (x, y), layers_of(model), make("gram", {}), likelihood=gaussian(), num_data=120)[
        "2.weight"
    ]
    hidden = [
        torch.cat([(part @ d["0.weight"].T + d["0.bias"]).tanh(), torch.ones(6, 1).double()], 1)
        for d, part in zip(draws, x.split(6), strict=True)
    ]
    torch.testing.assert_close(dense(found)[0], 10 * sum(h.T @ h for h in hidden))


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(3, 3))


def test_a_network_of_other_layers_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"'1\.gate' belongs to no layer") as error:
        layers_of(nn.Sequential(nn.Linear(3, 3), _Gated()))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"'0\.weight' belongs to no layer"):
        layers_of(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"'0\.weight' belongs to no layer"):
        layers_of(tied)
