r"""The Laplace approximation to the log marginal likelihood, and three ways to maximise it over the prior precisions.

At weights theta with curvature H, temperature T and prior N(0, diag(1/delta)),

    log p(D | delta) ~ log p(D | theta) / T
                       - 1/2 [ log det(H / T + diag(delta)) - sum_k log delta_k + sum_k delta_k theta_k^2 ].

T divides the log-likelihood alone (data counted 1/T times); with all of it multiplied by T this is the posterior at
temperature T under the prior N(0, T / delta).

For each free log precision eta_j the derivative is (gamma_j - s_j) / 2, with gamma_j the number of weights that the
data determine and s_j = sum_k delta_k theta_k^2 over the weights that it acts on. The evidence is concave in eta_j.

References
----------
MacKay: Bayesian interpolation (Neural Computation 1992).
Immer et al.: Scalable marginal likelihood estimation for model selection in deep learning (ICML 2021).
Dhahri et al.: Shaving weights with Occam's razor (NeurIPS 2024).
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from sgmcmc_prune.baselines.laplace.blocks import Block, DiagonalBlock
from sgmcmc_prune.baselines.laplace.curvature import Curvature
from sgmcmc_prune.baselines.laplace.prior import LOG_RANGE, PrecisionPrior

Update = Literal["adam", "mackay", "closed_form"]


def log_evidence(
    curvature: Curvature, weights: Mapping[str, Tensor], log_precision: Mapping[str, Tensor], temperature: float = 1.0
) -> Tensor:
    """The Laplace log marginal likelihood of the module docstring.

    Parameters
    ----------
    curvature : Curvature
        At these weights.
    weights : mapping of str to Tensor
        theta, by parameter name; those without a block are ignored.
    log_precision : mapping of str to Tensor
        log delta, shaped like the weights, float64.
    temperature : float
        T > 0.

    Returns
    -------
    Tensor, 0-d, float64
        Differentiable in the log precisions.
    """
    penalty = torch.stack([b.log_det_ratio(log_precision[n], temperature) for n, b in curvature.blocks.items()]).sum()
    return curvature.log_likelihood / temperature - (penalty + _scatter(curvature.blocks, weights, log_precision)) / 2


def well_determined(
    blocks: Mapping[str, Block], log_precision: Mapping[str, Tensor], temperature: float = 1.0
) -> dict[str, Tensor]:
    """gamma_k = 1 - delta_k [Pi^-1]_kk: how far the data rather than the prior determine each weight, in [0, 1].

    Their sum is MacKay's effective number of parameters. A masked weight (no curvature) has 0.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in log_precision.items()}
    ratio = torch.stack([block.log_det_ratio(leaves[name], temperature) for name, block in blocks.items()]).sum()
    gradients = torch.autograd.grad(-ratio, list(leaves.values()))
    return {name: gradient.clamp(0, 1) for name, gradient in zip(leaves, gradients, strict=True)}


class PriorUpdate:
    """Raises the evidence over the free parameters of a prior, at fixed weights and curvature.

    Parameters
    ----------
    prior : PrecisionPrior
        Updated in place.
    method : {"adam", "mackay", "closed_form"}
        Gradient ascent, whose state persists between calls; `mackay`, which takes half steps of MacKay's fixed point;
        `closed_form`, the maximiser itself, for a diagonal curvature and a parameterwise prior.
    steps : int
        Steps of each call (`closed_form` takes one).
    lr : float
        Step size of Adam in the log precisions.

    Raises
    ------
    ValueError
        For an unknown method, or a closed form asked of another prior.
    """

    def __init__(self, prior: PrecisionPrior, method: Update = "adam", steps: int = 100, lr: float = 0.1) -> None:
        if method not in get_args(Update):
            raise ValueError(f"prior update is {method!r}; choose one of {', '.join(get_args(Update))}")
        if method == "closed_form" and prior.structure != "parameterwise":
            raise ValueError(f"a {prior.structure} prior has no closed-form update; use 'mackay' or 'adam'")
        if steps < 1:
            raise ValueError(f"prior steps are {steps}; take at least 1")
        self.prior, self.method, self.steps = prior, method, steps
        # The evidence is not divided by N here, so that its gradients stay far above Adam's epsilon.
        self._adam = torch.optim.Adam(prior.free, lr=lr, maximize=True)

    def __call__(self, curvature: Curvature, weights: Mapping[str, Tensor], temperature: float = 1.0) -> list[float]:
        """Take the steps; return the log evidence before the first and after each.

        Raises
        ------
        ValueError
            If the method does not apply to this curvature.
        """
        self._check(curvature)
        trace = []
        for _ in range(1 if self.method == "closed_form" else self.steps):
            trace.append(self._step(curvature, weights, temperature))
            self.prior.clamp()
        trace.append(float(log_evidence(curvature, weights, self.prior.log_precision(), temperature).detach()))
        return trace

    def _check(self, curvature: Curvature) -> None:
        if self.method == "adam" or all(isinstance(block, DiagonalBlock) for block in curvature.blocks.values()):
            return
        if self.method == "closed_form" or self.prior.structure not in ("scalar", "layerwise"):
            raise ValueError(
                f"the {self.method} update of a {self.prior.structure} prior needs diagonal curvature, where weights "
                "do not interact; use 'adam' with kfac"
            )

    def _step(self, curvature: Curvature, weights: Mapping[str, Tensor], temperature: float) -> float:
        value = log_evidence(curvature, weights, self.prior.log_precision(), temperature)
        if self.method == "adam":
            self._adam.zero_grad()
            value.backward()
            self._adam.step()
        elif self.method == "mackay":
            for stage in self.prior.stages:
                _mackay_half_step(self.prior, stage, curvature.blocks, weights, temperature)
        else:
            _closed_form(self.prior, curvature.blocks, weights, temperature)
        return float(value.detach())


def _mackay_half_step(
    prior: PrecisionPrior,
    stage: list[Tensor],
    blocks: Mapping[str, Block],
    weights: Mapping[str, Tensor],
    temperature: float,
) -> None:
    """eta <- eta + 1/2 log(gamma / s), which rises to the fixed point gamma = s from one side.

    MacKay's own step (without the half) overshoots whenever gamma falls with delta: d log(gamma / s) / d eta is between
    -2 and -1, so the half step leaves at most half of the distance, and never crosses.
    """
    log_precision = prior.log_precision()
    ratio = torch.stack([block.log_det_ratio(log_precision[name], temperature) for name, block in blocks.items()]).sum()
    gamma = torch.autograd.grad(-ratio, stage, retain_graph=True)
    scatter = torch.autograd.grad(_scatter(blocks, weights, log_precision), stage)
    with torch.no_grad():
        for eta, gained, spent in zip(stage, gamma, scatter, strict=True):
            idle = (gained == 0) & (spent == 0)  # every weight masked: the evidence does not depend on it
            step = (gained.clamp_min(0) / spent).log().clamp(-2 * LOG_RANGE, 2 * LOG_RANGE) / 2
            eta.add_(torch.where(idle, torch.zeros_like(eta), step))


@torch.no_grad()
def _closed_form(
    prior: PrecisionPrior, blocks: Mapping[str, Block], weights: Mapping[str, Tensor], temperature: float
) -> None:
    """delta = (h / 2) (sqrt(1 + 4 / (h theta^2)) - 1), the root of delta theta^2 = h / (h + delta), h meaning h / T."""
    for name, block in blocks.items():
        assert isinstance(block, DiagonalBlock)
        (eta,) = prior.terms[name]
        h, square = block.curvature / temperature, weights[name].detach().double().square()
        # The same root without the difference of two close numbers, and without 0 * inf at theta = 0 or h = 0.
        delta = 2 / (square + (square.square() + 4 * square / h).sqrt())
        idle = (h == 0) & (square == 0)
        eta.copy_(torch.where(idle, eta, delta.log()))


def _scatter(blocks: Mapping[str, Block], weights: Mapping[str, Tensor], log_precision: Mapping[str, Tensor]) -> Tensor:
    """sum_k delta_k theta_k^2."""
    terms = [(log_precision[name].exp() * weights[name].detach().double().square()).sum() for name in blocks]
    return torch.stack(terms).sum()
