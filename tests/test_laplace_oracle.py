"""laplace-torch as an oracle, where it is installed: evidence and posterior precision, diagonal and Kronecker.

    pip install --no-deps laplace-torch==0.3 curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1 \
        asdfghjkl==0.1a4 torchmetrics einconv unfoldNd lightning-utilities opt-einsum einops linear_operator

It is no dependency: its training loop scales the prior by 1 / (N T) where its evidence has T / N, and it knows neither
unit-wise nor per-weight precisions with Kronecker factors.
"""

import warnings

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.laplace import PrecisionPrior, curvature, log_evidence

try:
    with warnings.catch_warnings(action="ignore"):
        from laplace import Laplace
        from laplace.curvature import AsdlGGN
except (ImportError, RuntimeError):  # RuntimeError: a torchvision beside it that lacks its operators
    pytest.skip("laplace-torch is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")


def fitted(hessian: str, temperature: float, delta: Tensor | float) -> tuple[nn.Module, Tensor, Tensor, object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=20)
    oracle = Laplace(
        model,
        "classification",
        subset_of_weights="all",
        hessian_structure=hessian,
        temperature=temperature,
        prior_precision=delta,
        backend=AsdlGGN,
    )
    oracle.fit(loader)
    return model, inputs, labels, oracle


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize(("ours", "theirs"), [("diagonal", "diag"), ("kfac", "kron")])
@pytest.mark.parametrize("layerwise", [False, True])
def test_evidence_and_posterior_precision_agree(ours: str, theirs: str, layerwise: bool, temperature: float) -> None:
    per_layer = [0.5, 2.0, 3.0, 0.1] if layerwise else [0.7] * 4
    delta = torch.tensor(per_layer, dtype=torch.float64) if layerwise else 0.7
    model, inputs, labels, oracle = fitted(theirs, temperature, delta)
    found = curvature(model, inputs, labels, structure=ours)  # type: ignore[arg-type]
    parameters = dict(model.named_parameters())
    prior = PrecisionPrior("layerwise", parameters)
    for (term,), value in zip(prior.terms.values(), per_layer, strict=True):
        term.data.fill_(value).log_()
    value = log_evidence(found, parameters, prior.log_precision(), temperature)
    expected = oracle.log_marginal_likelihood()  # type: ignore[attr-defined]
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-8)
    precision = prior.precision()
    diagonal = [found.blocks[n].posterior_precision(precision[n], temperature).flatten() for n in parameters]
    posterior = oracle.posterior_precision  # type: ignore[attr-defined]
    expected = posterior if theirs == "diag" else posterior.diag()
    torch.testing.assert_close(torch.cat(diagonal), expected.detach().double(), rtol=1e-6, atol=1e-9)
