"""Likelihoods against `torch.distributions`."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from sgmcmc_prune.likelihoods import bernoulli, categorical, gaussian, mean_nll

OUTPUTS = torch.tensor([-30.0, -2.0, -0.1, 0.0, 0.4, 3.0, 25.0, 1.0])
BINARY = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])


def test_categorical() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 4
    targets = torch.arange(50) % 7
    nll = categorical(logits, targets)
    assert nll.shape == (50,)
    torch.testing.assert_close(nll, -Categorical(logits=logits).log_prob(targets))


@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[:, None]], ids=["n", "n by 1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_bernoulli(outputs: Tensor, dtype: torch.dtype) -> None:
    nll = bernoulli(outputs, BINARY.to(dtype))
    assert nll.shape == (8,)
    torch.testing.assert_close(nll, -Bernoulli(logits=OUTPUTS).log_prob(BINARY))


@pytest.mark.parametrize("variance", [0.04, 1.0, 9.0])
@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[:, None]], ids=["n", "n by 1"])
@pytest.mark.parametrize("targets", [BINARY, BINARY[:, None]], ids=["n", "n by 1"])
def test_gaussian(variance: float, outputs: Tensor, targets: Tensor) -> None:
    nll = gaussian(variance)(outputs, targets)
    assert nll.shape == (8,)
    torch.testing.assert_close(nll, -Normal(OUTPUTS, variance**0.5).log_prob(BINARY))


def test_gaussian_gradient_has_no_stray_two() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    gaussian(2.0)(outputs, BINARY).sum().backward()
    torch.testing.assert_close(outputs.grad, (OUTPUTS - BINARY) / 2)


def test_mean_nll_is_the_mean_over_the_batch() -> None:
    expected = -Normal(OUTPUTS, 1.0).log_prob(BINARY).mean()
    torch.testing.assert_close(mean_nll(gaussian(), OUTPUTS, BINARY), expected)


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan")])
def test_noise_variance_must_be_positive(variance: float) -> None:
    with pytest.raises(ValueError, match="noise variance is"):
        gaussian(variance)


@pytest.mark.parametrize("likelihood", [bernoulli, gaussian()])
def test_two_outputs_for_one_target_are_refused(likelihood: object) -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        likelihood(torch.zeros(8, 2), BINARY)  # type: ignore[operator]
