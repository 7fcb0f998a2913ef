r"""IVON: a diagonal normal posterior at the cost of Adam, through the optional package `ivon-opt`.

The optimiser keeps a mean m and a Hessian estimate h of each parameter; its posterior is N(m, 1 / (N (h + d))) under
the prior N(0, 1 / (N d)), with weight decay d = 1 / (N prior_std^2).

References
----------
Shen, Daheim, Cong, Nickl, Marconi, Bazan, Yokota, Gurevych, Cremers, Khan, Moellenhoff: Variational learning is
effective for large deep networks (ICML 2024).
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.training import Trainer
from sgmcmc_prune.baselines.variational.graph import find_sites, mask_readers, trace
from sgmcmc_prune.baselines.variational.posterior import GaussianPosterior, VariationalFit, as_fit, point_spike
from sgmcmc_prune.data.batches import TrainSet, minibatches
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.masks import Mask


def fit_ivon(
    model: nn.Module,
    data: TrainSet,
    steps: int,
    batch_size: int,
    likelihood: Likelihood = categorical,
    *,
    lr: float = 0.1,
    prior_std: float = 1.0,
    hess_init: float = 0.1,
    beta2: float = 0.9999,
    seed: int = 0,
) -> VariationalFit:
    """Train a network with IVON.

    Parameters
    ----------
    model : Module
        Left as it is.
    data : TrainSet
        The N training examples, inputs and targets.
    steps, batch_size : int
    likelihood : Likelihood
        Without parameters of its own.
    lr, hess_init, beta2 : float
        Of IVON; the learning rate falls to zero on a cosine. The Hessian averages over about 1 / (1 - beta2) steps,
        which must be well under `steps`.
    prior_std : float
        Of the normal prior of every parameter.
    seed : int

    Returns
    -------
    VariationalFit
        Scores are Savage-Dickey log odds of each weight at even prior odds; `point_spike` regroups them.

    Raises
    ------
    ValueError
        If `ivon-opt` is not installed, or a batch is larger than the data.
    RunError
        If training diverges.
    """
    try:
        from ivon import IVON
    except ImportError as error:
        raise ValueError("IVON needs the package ivon-opt: pip install ivon-opt") from error
    network = copy.deepcopy(model)
    stream = minibatches(data, batch_size, seed, 0)
    num_data = stream.num_data
    decay = 1 / (num_data * prior_std**2)
    optimizer = IVON(network.parameters(), lr, ess=num_data, beta2=beta2, weight_decay=decay, hess_init=hess_init)
    trainer = _IvonTrainer(network, stream, likelihood, optimizer, steps)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = range(0, steps, 100)
        history = [{"step": float(part), "nll": trainer.run(min(100, steps - part))} for part in parts]
    hessian = torch.cat([group["hess"] for group in optimizer.param_groups])
    variance = _unflatten(network, 1 / (num_data * (hessian + decay)))
    posterior = ivon_posterior(network, variance, prior_std)
    return as_fit(posterior, likelihood, data, trainer.cost, history, draws=10, seed=seed)


class _IvonTrainer(Trainer):
    """The shared loop, with gradients at weights drawn from the posterior so far."""

    def gradient(self, inputs: Tensor, targets: Tensor) -> float:
        """The gradient of the mean negative log-likelihood at one draw."""
        with self.optimizer.sampled_params(train=True):  # type: ignore[attr-defined]
            return super().gradient(inputs, targets)


def ivon_posterior(network: nn.Module, variance: dict[str, Tensor], prior_std: float) -> GaussianPosterior:
    """The normal posterior around a network's parameters, with the Savage-Dickey log odds of each weight."""
    mean = {name: p.detach().clone() for name, p in network.named_parameters()}
    groups = {n: GroupMap("weight", tuple(m.shape)) for n, m in mean.items() if m.ndim in (2, 4)}
    bare = GaussianPosterior(network, mean, variance, {}, {}, partial(_with_readers, network))
    return point_spike(bare, groups, prior_std, 0.5)


def _with_readers(network: nn.Module, mask: Mask) -> Mask:
    """Where groups are nodes, which not every network that IVON trains can be asked about."""
    return mask_readers(mask, find_sites(trace(network)), network) if mask else mask


def _unflatten(network: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    parts = flat.split([p.numel() for p in parameters])
    return {name: part.view_as(p) for name, part, p in zip(names, parts, parameters, strict=True)}
