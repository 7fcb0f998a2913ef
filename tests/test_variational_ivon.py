"""IVON through its optional package, against the exact posterior of a conjugate model."""

import sys

import pytest
import torch

from sgmcmc_prune.baselines.variational.ivon import fit_ivon
from sgmcmc_prune.likelihoods import gaussian
from sgmcmc_prune.models import LinearModel


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ivon", None)
    with pytest.raises(ValueError, match="pip install ivon-opt"):
        fit_ivon(LinearModel((2,), 1), (torch.zeros(4, 2), torch.zeros(4)), 1, 4)


def test_conjugate_posterior() -> None:
    # Orthogonal inputs: the posterior is a product of normals with precision n / s^2 + 1.
    pytest.importorskip("ivon", reason="ivon-opt is not installed")
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(64, 4)).Q * 8
    y = x @ torch.tensor([0.0, 0.3, -0.5, 1.0]) + 0.7 * torch.randn(64)
    precision = 64 / 0.49 + 1
    mean = (x.T @ y) / 0.49 / precision
    model = LinearModel((4,), 1, bias=False)
    fitted = fit_ivon(model, (x, y), 1500, 64, gaussian(0.49), hess_init=1.0, beta2=0.99)
    found = fitted.posterior
    assert torch.allclose(found.mean["linear.weight"][0], mean, atol=0.02)
    assert torch.allclose(found.variance["linear.weight"][0], torch.full((4,), 1 / precision), rtol=0.3)
    assert fitted.mask["linear.weight"][0].tolist() == [False, True, True, True]
