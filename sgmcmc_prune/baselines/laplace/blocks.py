r"""The curvature of one parameter tensor, as a diagonal or as a Kronecker product, and what a Laplace fit asks of it.

With curvature H of the summed negative log-likelihood, temperature T and prior precision delta, one per weight, the
posterior precision is

    Pi = H / T + diag(delta).

A block answers three questions about it: log det Pi - log det diag(delta), diag(Pi), and Pi^(-1/2) xi.
"""

from typing import Protocol

import torch
from torch import Tensor


class Block(Protocol):
    """Curvature of one parameter tensor of some shape; arguments and results are float64 tensors of that shape."""

    def log_det_ratio(self, log_precision: Tensor, temperature: float) -> Tensor:
        """log det(Pi) - sum_k log delta_k >= 0, a 0-d tensor, differentiable in the log precisions."""

    def posterior_precision(self, precision: Tensor, temperature: float) -> Tensor:
        """diag(Pi)."""

    def whiten(self, noise: Tensor, precision: Tensor, temperature: float) -> Tensor:
        """Pi^(-1/2) xi: a posterior deviation for standard normal xi."""


class DiagonalBlock:
    """diag(H) alone: dropping the rest of a positive definite matrix can only raise its determinant (Hadamard).

    Parameters
    ----------
    name : str
        The parameter, for messages.
    curvature : Tensor
        h = diag(H) >= 0, shaped like the parameter. A weight with h = 0 that is itself zero takes no part in the
        evidence, whatever its precision is: that is how a masked weight is left out.

    Raises
    ------
    ValueError
        If h is not finite, or zero for every weight.
    """

    def __init__(self, name: str, curvature: Tensor) -> None:
        check_regular(name, curvature)
        self.curvature = curvature.double()

    def log_det_ratio(self, log_precision: Tensor, temperature: float) -> Tensor:
        """sum_k log(1 + h_k / (T delta_k))."""
        return torch.log1p(self.curvature / temperature * (-log_precision).exp()).sum()

    def posterior_precision(self, precision: Tensor, temperature: float) -> Tensor:
        """h / T + delta."""
        return self.curvature / temperature + precision

    def whiten(self, noise: Tensor, precision: Tensor, temperature: float) -> Tensor:
        """xi / sqrt(h / T + delta)."""
        return noise / self.posterior_precision(precision, temperature).sqrt()


class KroneckerBlock:
    r"""H = B (x) A with B = Q_b diag(l_b) Q_b' (outputs) and A = Q_a diag(l_a) Q_a' (inputs), for a weight (O, I, ...).

    A bias is the case A = 1. In the eigenbasis Q_b (x) Q_a the prior diag(delta) is not diagonal unless delta is one
    number; its off-diagonal part is dropped there, which leaves, with Delta = delta as a matrix (O, I),

    .. math:: \tilde\Delta = (Q_b \circ Q_b)^T \Delta\, (Q_a \circ Q_a), \qquad
              \log\det\Pi \approx \sum_{ij} \log(l_{b,i} l_{a,j} / T + \tilde\Delta_{ij}).

    This keeps the trace, is exact for one delta per block, and bounds the log determinant from above (Hadamard), so the
    evidence from below. The diagonal needs no eigenvectors: Pi_oi = B_oo A_ii / T + delta_oi, exactly.

    Parameters
    ----------
    name : str
        The parameter, for messages.
    inputs, outputs : Tensor, shape (I, I) and (O, O)
        A and B, symmetric and positive semidefinite.

    Raises
    ------
    ValueError
        If a factor is not finite, is zero, or has an eigenvalue clearly below zero.

    References
    ----------
    Martens, Grosse: Optimizing neural networks with Kronecker-factored approximate curvature (ICML 2015).
    Immer et al.: Scalable marginal likelihood estimation for model selection in deep learning (ICML 2021).
    """

    def __init__(self, name: str, inputs: Tensor, outputs: Tensor) -> None:
        self.inputs, self.outputs = inputs.double(), outputs.double()
        input_values, self._input_basis = _eigen(name, "input", self.inputs)
        output_values, self._output_basis = _eigen(name, "output", self.outputs)
        self.eigenvalues = torch.outer(output_values, input_values)

    def log_det_ratio(self, log_precision: Tensor, temperature: float) -> Tensor:
        """sum_ij log(l_bi l_aj / T + Delta~_ij) - sum_k log delta_k."""
        return self._rotated(log_precision.exp(), temperature).log().sum() - log_precision.sum()

    def posterior_precision(self, precision: Tensor, temperature: float) -> Tensor:
        """B_oo A_ii / T + delta_oi."""
        likelihood = torch.outer(self.outputs.diagonal(), self.inputs.diagonal())
        return likelihood.view_as(precision) / temperature + precision

    def whiten(self, noise: Tensor, precision: Tensor, temperature: float) -> Tensor:
        """Q_b (xi / sqrt(l_b l_a' / T + Delta~)) Q_a'."""
        scaled = noise.view_as(self.eigenvalues) / self._rotated(precision, temperature).sqrt()
        return (self._output_basis @ scaled @ self._input_basis.T).view_as(noise)

    def _rotated(self, precision: Tensor, temperature: float) -> Tensor:
        """The approximate eigenvalues of Pi, shape (O, I)."""
        prior = self._output_basis.square().T @ precision.reshape(self.eigenvalues.shape) @ self._input_basis.square()
        return self.eigenvalues / temperature + prior


def check_regular(name: str, curvature: Tensor) -> None:
    """Raise ValueError, in one line, for a curvature that is not finite or zero everywhere."""
    if not bool(curvature.isfinite().all()):
        raise ValueError(f"the curvature of {name!r} is not finite: training diverged there; lower the learning rate")
    if not bool((curvature != 0).any()):
        raise ValueError(
            f"the curvature of {name!r} is singular (zero for every weight): its units are dead, it is cut off by a "
            "masked layer, or the empirical Fisher has collapsed; use estimator 'ggn', or keep more weights"
        )


def _eigen(name: str, side: str, factor: Tensor) -> tuple[Tensor, Tensor]:
    check_regular(name, factor)
    values, basis = torch.linalg.eigh(factor)
    if float(values[0]) < -1e-6 * float(values[-1]):
        raise ValueError(
            f"the {side} factor of {name!r} has the eigenvalue {float(values[0]):.3g}: a Kronecker factor must be "
            "positive semidefinite; sum it over the data in float64"
        )
    return values.clamp_min(0), basis
