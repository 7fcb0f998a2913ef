"""Re-estimate BatchNorm's running statistics, which are stale once weights are averaged, drawn or masked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgmcmc_prune.predictive.predict import evaluation_mode, modes_kept


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    r"""Replace BatchNorm's running statistics by their averages over `batches`.

    With B batches, :math:`\mu = \frac1B \sum_b \bar x_b` and :math:`\sigma^2 = \frac1B \sum_b s_b^2`, where
    :math:`s_b^2` is the unbiased variance within batch b. All other layers run in evaluation mode (no dropout), as they
    will when the statistics are used. Training modes and momenta are left as they were found.

    Parameters
    ----------
    model : nn.Module
        The network; a no-op if it has no BatchNorm with running statistics.
    batches : iterable of Tensor
        Input batches, of equal size, on the model's device.

    Returns
    -------
    int
        Number of BatchNorm layers re-estimated.

    Raises
    ------
    ValueError
        If there is something to estimate and no batch; the old statistics stay then.

    References
    ----------
    Izmailov et al. (2018), Averaging weights leads to wider optima and better generalization, section 3.2.
    """
    found = layers(model)
    if not found:
        return 0
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise ValueError("no batch to re-estimate BatchNorm from; give at least one input batch")
    with _only_training(model, found):
        for layer in found:
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for a cumulative average
        for inputs in chain([first], remaining):
            model(inputs)
    return len(found)


def layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers with running statistics that train; some are held in evaluation mode by design."""
    with modes_kept(model):
        model.train()
        return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None and m.training]


@contextmanager
def _only_training(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Put `layers` in training mode and all else in evaluation mode, and restore modes and momenta after."""
    momenta = [layer.momentum for layer in layers]
    try:
        with evaluation_mode(model):
            for layer in layers:
                layer.train()
            yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
