"""The gradients of several chains of one architecture in one batched pass, by `torch.func`.

K networks are one function of stacked parameters (K, ...); `vmap` turns their K small matrix products into one batched
product. Each network's parameters and gradients are views of the stacks, so samplers, priors and EM see nothing of it.
Minibatches and noise are those of each chain alone: the draws are those of a loop to rounding.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.rehearsal import ROUNDING, relative, unchanged
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.likelihoods import Likelihood, mean_nll
from sgmcmc_prune.predictive.predict import one_by_one_is_an_error
from sgmcmc_prune.pruning.prunable import trainable

#: Examples on which batching is tried.
TRIED = 4


def obstacle(chain: Chain) -> str | None:
    """What keeps chains like this one from being batched, in words; None if nothing does."""
    if chain.network is not chain.model or chain.precision != "float32":
        return "networks that are compiled, shared by ranks, or in bfloat16 are passed one by one"
    for name, module in chain.model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name!r} is batch normalisation, whose running statistics cannot be batched over chains"
        if isinstance(module, nn.modules.dropout._DropoutNd):
            return f"{name!r} is dropout, whose noise would not be that of a chain alone"
    return _failure(chain)


def _failure(chain: Chain) -> str | None:
    """Try it: the gradients of two networks in one pass must be those of each alone."""
    inputs, targets = (part[:TRIED] for part in chain.stream.batch(chain.step))
    models = [copy.deepcopy(chain.model).train() for _ in range(3)]
    before = {name: b.clone() for name, b in models[0].named_buffers()}
    with unchanged(chain.model):
        mean_nll(chain.likelihood, models[0](inputs), targets).backward()
        if moved := [name for name, b in models[0].named_buffers() if not torch.equal(b, before[name])]:
            return f"every pass changes the buffer {moved[0]!r}, which batched networks do not keep"
        try:
            networks = BatchedNetworks(models[1:])
            with one_by_one_is_an_error():
                networks.gradients(chain.likelihood, torch.stack([inputs, inputs]), torch.stack([targets, targets]))
        except Exception as error:  # torch.func refuses what it cannot batch with errors of many kinds
            return f"torch.func cannot batch the network ({str(error).splitlines()[0]})"
    for name, p in trainable(models[0]).items():
        for other in models[1:]:
            if relative(p.grad, other.get_parameter(name).grad) > ROUNDING:  # type: ignore[arg-type]
                return f"batched, the gradient of {name!r} is another than alone"
    return None


def require_batchable(chain: Chain) -> None:
    """ValueError, with the reason, if chains like this one cannot be batched."""
    if reason := obstacle(chain):
        raise ValueError(f"execution 'batched' cannot run here: {reason}; use loop or processes")


class BatchedNetworks:
    """The networks of several chains, as one.

    Parameters
    ----------
    models : sequence of Module
        Of one architecture, on one device. Their parameters become views of the stacks.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        parameters, self.buffers = stack_module_state(self.models)
        self.stacked = {name: p.detach().clone() for name, p in parameters.items()}
        for index, model in enumerate(self.models):
            for name, p in model.named_parameters():
                p.data = self.stacked[name][index]

    def gradients(self, likelihood: Likelihood, inputs: Tensor, targets: Tensor) -> Tensor:
        """Set `.grad` of every network to the gradient of its mean negative log-likelihood on its own minibatch.

        Parameters
        ----------
        likelihood : Likelihood
        inputs : Tensor, shape (K, n, ...)
        targets : Tensor, shape (K, n, ...)

        Returns
        -------
        Tensor, shape (K,)
            The mean negative log-likelihoods.
        """
        template = self.models[0].train()

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return mean_nll(likelihood, functional_call(template, (parameters, buffers), (x,)), y)

        losses: Tensor
        gradients, losses = vmap(grad_and_value(loss))(self.stacked, self.buffers, inputs, targets)
        for index, model in enumerate(self.models):
            for name, p in model.named_parameters():
                p.grad = gradients[name][index]
        return losses


class BatchedChains:
    """Chains that take every step together.

    Parameters
    ----------
    chains : sequence of Chain
        Of one architecture and one likelihood, all at the same step.

    Raises
    ------
    ValueError
        If such chains cannot be batched; the message says why.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        require_batchable(chains[0])
        self.chains = list(chains)
        self.networks = BatchedNetworks([chain.model for chain in chains])

    def advance(self) -> list[Plan]:
        """Take one step of every chain.

        Raises
        ------
        RunError
            If a loss is not finite: that chain has diverged.
        """
        plans = [chain.begin() for chain in self.chains]
        batches = [chain.stream.batch(chain.step) for chain in self.chains]
        inputs, targets = (torch.stack(parts) for parts in zip(*batches, strict=True))
        losses = self.networks.gradients(self.chains[0].likelihood, inputs, targets)
        for chain, loss in zip(self.chains, losses.unbind(), strict=True):
            chain.set_loss(loss)  # all of them, before any chain moves
        for chain, plan in zip(self.chains, plans, strict=True):
            chain.complete(plan)
        return plans
