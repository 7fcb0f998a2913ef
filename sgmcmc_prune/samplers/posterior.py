"""Any posterior, from two functions: log p(batch | w) per example and log p(w). For models that are no nn.Module.

    def log_likelihood(params, batch):                          # one entry per example of the batch
        x, y = batch
        return -0.5 * (y - x @ params["w"]).square()

    def log_prior(params):                                      # a scalar; parameters need not be independent
        return -0.5 * params["w"] @ precision @ params["w"]

    posterior = Posterior(log_likelihood, log_prior, num_data=len(y))
    params = {"w": torch.zeros(3, requires_grad=True)}
    sampler = BAOAB(params.items(), lr=0.1, num_data=posterior.num_data, prior=None)
    draws = sample(posterior, sampler, repeat((x, y)), burn_in=1000, draws=500, thin=20)
    draws["w"].mean(0)                                          # draws["w"]: (500, 3)

The prior is part of the posterior, so the sampler has none of its own (`prior=None`). Both functions are evaluated at
one state, before any parameter moves: a prior that couples parameters never sees some old and some new.

Several chains go to ArviZ as `arviz_base.from_dict({"posterior": {name: array of shape (chain, draw, ...)}})`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.samplers import Sampler
from sgmcmc_prune.samplers.checks import check_num_data
from sgmcmc_prune.settings import check_integer

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """U(w) = -sum_i log p(x_i | w) - log p(w), estimated from minibatches.

    Parameters
    ----------
    log_likelihood : callable
        (params, batch) -> log-likelihood of each example of the batch, shape (n,).
    log_prior : callable
        params -> log prior density, a scalar; additive constants do not matter.
    num_data : int
        N, the number of examples behind the minibatches.
    """

    log_likelihood: Callable[[Params, Any], Tensor]
    log_prior: Callable[[Params], Tensor]
    num_data: int

    def __post_init__(self) -> None:
        check_num_data(self.num_data)

    def potential(self, params: Params, batch: Any) -> Tensor:
        """U / N on a minibatch: -mean log p(x_i | w) - log p(w) / N, 0-d.

        Raises
        ------
        ValueError
            If the likelihood is not one number per example, or the prior not one number.
        """
        log_likelihood, log_prior = self.log_likelihood(params, batch), self.log_prior(params)
        if log_likelihood.dim() != 1 or len(log_likelihood) == 0:
            raise ValueError(
                f"log_likelihood has shape {tuple(log_likelihood.shape)}; it must be (n,), one entry per example"
            )
        if log_prior.numel() != 1:
            raise ValueError(f"log_prior has shape {tuple(log_prior.shape)}; it must be one number")
        return -log_likelihood.mean() - log_prior.squeeze() / self.num_data

    def backward(self, params: Params, batch: Any) -> float:
        """Leave d(U / N) / dw in `.grad` of every parameter; return U / N."""
        for p in params.values():
            p.grad = None
        potential = self.potential(params, batch)
        potential.backward()
        return potential.item()


def sample(
    posterior: Posterior, sampler: Sampler, batches: Iterable[Any], *, burn_in: int, draws: int, thin: int = 1
) -> dict[str, Tensor]:
    """Run one chain and keep its draws.

    Parameters
    ----------
    posterior : Posterior
    sampler : Sampler
        With `prior=None` and the posterior's `num_data`; it holds the parameters, by name, and moves them in place.
    batches : iterable
        Minibatches, one per step; `itertools.repeat(data)` for the full batch.
    burn_in, draws, thin : int
        Steps left out, draws kept, steps per draw.

    Returns
    -------
    dict of str to Tensor
        Shape (draws, *parameter) each.

    Raises
    ------
    ValueError
        If the sampler has a prior, another `num_data`, or the batches run out.
    RunError
        If the potential is not finite: the chain has diverged.
    """
    params = {name: p for name, p, _, _ in sampler.named_states()}
    _check(posterior, sampler, burn_in, draws, thin)
    kept: dict[str, list[Tensor]] = {name: [] for name in params}
    supply = iter(batches)
    for step in range(burn_in + draws * thin):
        batch = next(supply, None)
        if batch is None:
            raise ValueError(f"batches ran out after {step} of {burn_in + draws * thin} steps; give one per step")
        if not math.isfinite(posterior.backward(params, batch)):
            raise RunError(f"the chain diverged at step {step}: U / N is not finite. Lower the step size")
        sampler.step()
        if step >= burn_in and (step - burn_in + 1) % thin == 0:
            for name, p in params.items():
                kept[name].append(p.detach().clone())
    return {name: torch.stack(values) for name, values in kept.items()}


def _check(posterior: Posterior, sampler: Sampler, burn_in: int, draws: int, thin: int) -> None:
    if sampler.prior is not None:
        raise ValueError("the sampler has a prior, and so has the posterior; build the sampler with prior=None")
    if any(group["num_data"] != posterior.num_data for group in sampler.param_groups):
        given = sampler.param_groups[0]["num_data"]
        raise ValueError(f"the sampler's num_data is {given}, the posterior's {posterior.num_data}; they must agree")
    for name, value in {"burn_in": burn_in, "draws": draws, "thin": thin}.items():
        check_integer(name, value)
    if burn_in < 0 or draws < 1 or thin < 1:
        raise ValueError(f"burn_in {burn_in}, draws {draws}, thin {thin}: they must be >= 0, >= 1 and >= 1")
