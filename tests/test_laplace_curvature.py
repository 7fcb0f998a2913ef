"""Curvature against brute force: every column of the Jacobian, every layer kind, every likelihood."""

import math

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.laplace.blocks import DiagonalBlock, KroneckerBlock
from sgmcmc_prune.baselines.laplace.curvature import curvature
from sgmcmc_prune.likelihoods import Likelihood, bernoulli, categorical, gaussian


def mlp(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, outputs)).double()


def convnet() -> nn.Sequential:
    torch.manual_seed(1)
    first = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    layers = [first, nn.Tanh(), nn.Conv2d(3, 4, 2, dilation=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


class Shared(nn.Module):
    """One layer called twice, and a layer over tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.twice(self.twice(x).tanh()).view(len(x), 2, 2, 1).expand(-1, 2, 2, 4).sin()).mean((1, 2))


def data(*shape: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, classes, shape[:1], generator=generator)


def full_ggn(model: nn.Module, inputs: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, Tensor]:
    """sum_n J_n' (d^2 l_n / df^2) J_n of each parameter tensor, by automatic differentiation alone."""
    total = {name: torch.zeros(p.numel(), p.numel(), dtype=p.dtype) for name, p in model.named_parameters()}
    for x, y in zip(inputs, targets, strict=True):
        outputs = model(x[None])[0]
        second = torch.autograd.functional.hessian(
            lambda f, y=y: likelihood(f[None], y[None])[0],  # type: ignore[misc]
            outputs.detach(),
        )
        for name, p in model.named_parameters():
            jacobian = torch.stack([torch.autograd.grad(f, p, retain_graph=True)[0].flatten() for f in outputs])
            total[name] += jacobian.T @ second @ jacobian
    return total


CASES = {
    "mlp, categorical": (mlp(), (7, 4), categorical),
    "mlp, gaussian": (mlp(1), (7, 4), gaussian(0.3)),
    "mlp, bernoulli": (mlp(1), (7, 4), bernoulli),
    "convnet": (convnet(), (5, 2, 8, 8), categorical),
    "shared and tokens": (Shared().double(), (6, 4), categorical),
}


@pytest.mark.parametrize("case", CASES)
def test_diagonal_ggn_is_the_brute_force_diagonal(case: str) -> None:
    model, shape, likelihood = CASES[case]
    inputs, targets = data(*shape, classes=3 if likelihood is categorical else 2)
    targets = targets if likelihood is categorical else targets.double()
    found = curvature(model, inputs, targets, likelihood=likelihood, batch_size=3)
    expected = full_ggn(model, inputs, targets, likelihood)
    assert found.blocks.keys() == expected.keys()
    for name, block in found.blocks.items():
        assert isinstance(block, DiagonalBlock)
        torch.testing.assert_close(block.curvature.flatten(), expected[name].diagonal(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("structure", ["diagonal", "kfac"])
@pytest.mark.parametrize("estimator", ["ggn", "empirical"])
def test_sums_over_all_batches(structure: str, estimator: str) -> None:
    inputs, targets = data(11, 2, 8, 8)
    precision = {n: torch.rand_like(p) for n, p in convnet().named_parameters()}
    settings = {"structure": structure, "estimator": estimator}
    whole = curvature(convnet(), inputs, targets, batch_size=11, **settings)  # type: ignore[arg-type]
    parts = curvature(convnet(), inputs, targets, batch_size=2, **settings)  # type: ignore[arg-type]
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood)
    assert parts.gradient_evaluations == whole.gradient_evaluations == 11 * (3 if estimator == "ggn" else 1)
    for name in precision:
        a, b = (found.blocks[name].posterior_precision(precision[name], 1.0) for found in (whole, parts))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["mlp, categorical", "convnet"])
def test_kronecker_product_of_one_example_at_one_position_is_exact(case: str) -> None:
    model, shape, _ = CASES[case]
    inputs, targets = data(1, *shape[1:])
    found = curvature(model, inputs, targets, structure="kfac")
    expected = full_ggn(model, inputs, targets, categorical)
    for name, block in found.blocks.items():
        assert isinstance(block, KroneckerBlock)
        if case == "mlp, categorical" or "5." in name:  # convolutions have many positions
            torch.testing.assert_close(torch.kron(block.outputs, block.inputs), expected[name])


def test_kronecker_bias_blocks_are_exact_and_weights_have_the_right_scale() -> None:
    model, (inputs, targets) = convnet(), data(40, 2, 8, 8)
    found = curvature(model, inputs, targets, structure="kfac")
    expected = full_ggn(model, inputs, targets, categorical)
    for name, block in found.blocks.items():
        assert isinstance(block, KroneckerBlock)
        if "bias" in name:
            torch.testing.assert_close(block.outputs, expected[name])
        else:  # forgetting to average over the 4 to 16 positions would give a ratio of that size
            ratio = float(block.eigenvalues.sum() / expected[name].trace())
            assert 0.6 < ratio < 1.7, name


def test_empirical_fisher_is_the_sum_of_squared_gradients() -> None:
    model, (inputs, targets) = convnet(), data(5, 2, 8, 8)
    found = curvature(model, inputs, targets, estimator="empirical")
    for name, p in model.named_parameters():
        squares = torch.zeros_like(p)
        for x, y in zip(inputs, targets, strict=True):
            squares += torch.autograd.grad(categorical(model(x[None]), y[None]).sum(), p)[0].square()
        torch.testing.assert_close(found.blocks[name].posterior_precision(torch.zeros_like(p), 1.0), squares)


def test_monte_carlo_ggn_is_exact_for_one_output_and_unbiased_for_more() -> None:
    inputs, targets = data(6, 4, classes=2)
    exact, drawn = (
        curvature(mlp(1), inputs, targets.double(), likelihood=bernoulli, estimator=e)  # type: ignore[arg-type]
        for e in ("ggn", "monte_carlo")
    )
    zero = torch.zeros(5, 4, dtype=torch.float64)
    a, b = (f.blocks["0.weight"].posterior_precision(zero, 1.0) for f in (exact, drawn))
    torch.testing.assert_close(a, b)
    # 45 numbers, each the mean of 200 draws, compared at 5 standard errors: false-alarm rate about 3e-5.
    inputs, targets = data(6, 4)
    draws = torch.stack(
        [
            flat_diagonal(curvature(mlp(), inputs, targets, estimator="monte_carlo", seed=seed).blocks)
            for seed in range(200)
        ]
    )
    expected = flat_diagonal(curvature(mlp(), inputs, targets).blocks)
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected).abs() <= 5 * error + 1e-12).all())
    assert bool((draws.std(0) > 0).any())


def flat_diagonal(blocks: object) -> Tensor:
    return torch.cat([block.curvature.flatten() for block in blocks.values()])  # type: ignore[attr-defined]


def test_modes_are_put_back_and_dropout_is_off() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    model[1].eval()
    inputs, targets = data(5, 4)
    first, second = (flat_diagonal(curvature(model, inputs.float(), targets).blocks) for _ in range(2))
    assert torch.equal(first, second)
    assert [m.training for m in model] == [True, False, True]
    assert all(p.grad is None for p in model.parameters())


def test_a_layer_without_a_rule_is_named_and_can_be_skipped() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    inputs, targets = torch.randn(5, 1, 4, 4), torch.arange(5) % 3
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm2d\) has no curvature rule; supported are Linear"):
        curvature(model, inputs, targets)
    found = curvature(model, inputs, targets, skip=["1"])
    assert list(found.blocks) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    with pytest.raises(ValueError, match=r"skip names \['bn'\], which are no modules"):
        curvature(model, inputs, targets, skip=["bn"])


@pytest.mark.parametrize("options", [{"groups": 2}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 1}])
def test_a_convolution_outside_the_rule_is_named(options: dict[str, object]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, **options))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layer '0' .Conv2d. has no curvature rule"):
        curvature(model, torch.randn(1, 2, 5, 5), torch.zeros(1, dtype=torch.long))


def test_shared_parameters_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"1.weight is also 0.weight"):
        curvature(model, torch.randn(2, 3), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("structure", ["diagonal", "kfac"])
def test_a_singular_curvature_is_one_line_that_names_the_layer(structure: str) -> None:
    model = mlp()
    nn.init.constant_(model[0].bias, -100.0)
    with pytest.raises(ValueError, match=r"curvature of '0.weight' is singular .*keep more weights$"):
        curvature(model, *data(5, 4), structure=structure)  # type: ignore[arg-type]


def test_a_curvature_that_is_not_finite_is_refused() -> None:
    model = mlp()
    nn.init.constant_(model[2].bias, math.nan)
    with pytest.raises(ValueError, match=r"curvature of '0.weight' is not finite: training diverged"):
        curvature(model, *data(5, 4))


def test_unknown_choices_are_named() -> None:
    with pytest.raises(ValueError, match="structure is 'full'; choose one of diagonal, kfac"):
        curvature(mlp(), *data(2, 4), structure="full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="estimator is 'mc'; choose one of ggn, monte_carlo, empirical"):
        curvature(mlp(), *data(2, 4), estimator="mc")  # type: ignore[arg-type]


@pytest.mark.parametrize("structure", ["diagonal", "kfac"])
def test_a_part_of_the_data_stands_for_all(structure: str) -> None:
    """Two halves, each scaled to all examples, average to the whole: a random part is unbiased."""
    inputs, targets = data(12, 4)
    settings = {"structure": structure, "num_data": 12}
    halves = [curvature(mlp(), inputs[i : i + 6], targets[i : i + 6], **settings) for i in (0, 6)]  # type: ignore[arg-type]
    whole = curvature(mlp(), inputs, targets, structure=structure)  # type: ignore[arg-type]
    for name, block in whole.blocks.items():
        key = "curvature" if structure == "diagonal" else "outputs"
        mean = sum(getattr(half.blocks[name], key) for half in halves) / 2
        torch.testing.assert_close(mean, getattr(block, key))
    assert sum(half.log_likelihood for half in halves) / 2 == pytest.approx(whole.log_likelihood)
    assert [half.gradient_evaluations for half in halves] == [whole.gradient_evaluations // 2] * 2
