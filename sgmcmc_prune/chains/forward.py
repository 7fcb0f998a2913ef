"""Passes in a run's precision, and the loss of a minibatch by them, keyed for what the network itself draws."""

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.seeding import torch_seeded
from sgmcmc_prune.likelihoods import Likelihood, mean_nll

Precision = Literal["float32", "bfloat16"]


def seeded(device: torch.device, stream: MinibatchStream, step: int, rank: int = 0) -> AbstractContextManager[None]:
    """Key what a network itself draws, such as dropout, by the step: then it, too, is no matter of a resume."""
    return torch_seeded(device, "network", stream.seed, stream.chain, step, rank)


def in_precision(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Pass networks in this precision; weights stay in float32, and must not change before the end."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def widened(outputs: Tensor) -> Tensor:
    """Outputs of such passes in the type of the weights."""
    return outputs.float() if outputs.dtype == torch.bfloat16 else outputs


def minibatch_nll(
    network: nn.Module,
    likelihood: Likelihood,
    batch: tuple[Tensor, Tensor],
    precision: Precision,
    key: AbstractContextManager[None],
) -> Tensor:
    """The mean negative log-likelihood of a minibatch, 0-d; under autocast it is taken in the type of the weights."""
    inputs, targets = batch
    with key, in_precision(inputs.device, precision):
        outputs = network(inputs)
    return mean_nll(likelihood, widened(outputs), targets)
