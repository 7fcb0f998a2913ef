r"""One network in the place of many: trained until it predicts as all draws of a pruned posterior do together.

With f_s the draws, each under the mask of its chain, and f(x; w) one network under one mask, w is moved to lower

.. math:: \frac1n \sum_i E_{y \sim \frac1S \sum_s p(y | f_s(x_i))} [-\log p(y | f(x_i; w))],

the cross-entropy to the draws' mixture (`ObservationModel.cross_entropy`), on the training inputs as a chain sees them.

References
----------
Hinton, Vinyals and Dean (arXiv 1503.02531); Balan, Rathod, Murphy and Welling, Bayesian dark knowledge (NeurIPS 2015).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.chains.forward import seeded
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import ObservationModel, Prediction
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.prunable import trainable

#: Key of the minibatches; no chain has it.
DISTILLING_CHAIN = 2**16 - 3


class Teacher:
    """What some networks of one architecture predict together.

    Parameters
    ----------
    network : Module
    states : iterable of mappings from name to Tensor
        Parameters and buffers of each, all of which are held in memory.
    likelihood : ObservationModel
    """

    def __init__(
        self, network: nn.Module, states: Iterable[Mapping[str, Tensor]], likelihood: ObservationModel
    ) -> None:
        self.network, self.likelihood = network, likelihood
        self.states = [{name: value.clone() for name, value in state.items()} for state in states]

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Prediction:
        """Their mixture, for inputs (n, ...)."""
        found: Any = None
        with evaluation_mode(self.network):
            for state in self.states:
                latest = self.likelihood.prediction(as_rows(functional_call(self.network, state, (inputs,))))
                found = latest if found is None else found.pooled(latest)
        return found


def as_rows(outputs: Tensor) -> Tensor:
    """Outputs as (n, numbers)."""
    return outputs.unsqueeze(-1).flatten(1)


def distil(
    network: nn.Module,
    mask: masks.Mask,
    teacher: Teacher,
    stream: MinibatchStream,
    steps: int,
    lr: float,
    momentum: float,
) -> None:
    """Train a network in place, under its mask, to predict as the teacher does: SGD on a cosine to zero.

    Where the teacher predicts as the network does, the gradient is zero and stays so (Adam would magnify its rounding).

    Parameters
    ----------
    network : Module
        Its masked weights are zero, and stay so.
    mask : dict of str to bool Tensor
    teacher : Teacher
    stream : MinibatchStream
        Its targets are not read.
    steps : int
    lr, momentum : float

    Raises
    ------
    ValueError
        If the teacher's likelihood knows no cross-entropy.
    RunError
        If the loss is not finite.
    """
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.SGD(trainable(network).values(), lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for step in range(steps):
        inputs, _ = stream.batch(step)
        target = teacher(inputs)
        with seeded(inputs.device, stream, step):
            loss = teacher.likelihood.cross_entropy(as_rows(network(inputs)), target).mean()
        if not math.isfinite(value := loss.item()):
            raise RunError(f"distilling diverged at step {step}: the loss is {value}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        masks.apply(mask, parameters)
    network.eval()
