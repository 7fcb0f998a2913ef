"""Enumeration of spike-and-slab regression, against densities of the responses and quadrature over the weights."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.certify.enumeration import all_models, enumerate_models

KNOWN = {"noise_variance": 0.5, "spike_variance": 0.02, "slab_variance": 1.5, "inclusion_rate": 0.3}


def problem(features: int = 4) -> tuple[Tensor, Tensor]:
    """Correlated features, and responses to some of them."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(15, features, generator=generator, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0]
    y = x @ torch.linspace(0.8, 0, features, dtype=torch.float64)
    return x, y + 0.7 * torch.randn(15, generator=generator, dtype=torch.float64)


def test_inclusion_is_that_of_the_densities_of_the_responses() -> None:
    """From y | gamma ~ N(0, s^2 I + X V_gamma X'), model by model."""
    x, y = problem()
    models = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    log_weight = []
    for gamma in models:
        variance = gamma * 1.5 + (1 - gamma) * 0.02
        covariance = 0.5 * torch.eye(15, dtype=torch.float64) + (x * variance) @ x.T
        evidence = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)
        log_weight.append(evidence + (gamma * math.log(0.3) + (1 - gamma) * math.log(0.7)).sum())
    expected = torch.stack(log_weight).softmax(0) @ models
    torch.testing.assert_close(enumerate_models(x, y, **KNOWN).inclusion_probability, expected, rtol=1e-10, atol=1e-12)


def test_moments_are_those_of_the_marginal_density_of_the_weights() -> None:
    """Two weights on a grid under the mixture prior, indicators summed out."""
    x, y = problem(2)
    axis = torch.linspace(-4, 4, 1601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_likelihood = -((y - grid @ x.T).square().sum(1)) / (2 * 0.5)

    def log_normal(v: float) -> Tensor:
        return -grid.square() / (2 * v) - 0.5 * math.log(v)

    slab, spike = math.log(0.3) + log_normal(1.5), math.log(0.7) + log_normal(0.02)
    weight = (log_likelihood + torch.logaddexp(slab, spike).sum(1)).softmax(0)
    exact = enumerate_models(x, y, **KNOWN)
    mean = weight @ grid
    torch.testing.assert_close(exact.mean, mean, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(exact.variance, weight @ (grid - mean).square(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(exact.inclusion_probability, weight @ (slab - spike).sigmoid(), rtol=1e-6, atol=1e-8)


def test_a_hopeless_scale_overflows_nothing() -> None:
    x, y = problem()
    exact = enumerate_models(1e3 * x, 1e3 * y, **(KNOWN | {"spike_variance": 1e-9}))
    assert all(bool(v.isfinite().all()) for v in exact)
    assert float(exact.inclusion_probability.max()) <= 1 + 1e-12


def test_every_model_occurs_once_and_in_batches() -> None:
    assert sorted(map(tuple, all_models(3).int().tolist())) == list(itertools.product([0, 1], repeat=3))
    x, y = problem(13)  # 8192 models: more than one batch
    whole = enumerate_models(x, y, **KNOWN)
    order = torch.arange(12, -1, -1)
    flipped = enumerate_models(x[:, order], y, **KNOWN)
    torch.testing.assert_close(flipped.inclusion_probability[order], whole.inclusion_probability)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spike_variance": 2.0}, "0 < spike < slab"),
        ({"inclusion_rate": 1.0}, "inclusion_rate"),
        ({"noise_variance": 0.0}, "noise_variance"),
        ({"x": torch.zeros(15, 16)}, "at most 15"),
        ({"y": torch.zeros(14)}, r"must be \(n, p\) and \(n,\)"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    x, y = problem()
    with pytest.raises(ValueError, match=message):
        enumerate_models(**({"x": x, "y": y} | KNOWN | change))
