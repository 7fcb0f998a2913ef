r"""Prior inclusion probabilities from the theory of sparse variational networks, as the authors' code computes them.

Layer l has k_l weights into each of its m_l nodes; n are examples, L hidden layers, T all parameters.

References
----------
Jantre, Bhattacharya, Maiti: Layer adaptive node selection in Bayesian neural networks (Neural Networks 2023); Bai,
Song, Cheng: Efficient variational inference for sparse deep learning (NeurIPS 2020), as in the code of Jantre et al.
"""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from sgmcmc_prune.pruning.prunable import trainable


def jantre_inclusion(widths: Sequence[int], num_data: int) -> list[float]:
    r"""Prior inclusion of the nodes of each hidden layer, in a network of fully connected layers.

    .. math::
        -\log\lambda_l = \log m_l + 10^{-9} (k_l + 1) \vartheta_l, \quad
        \vartheta_l = (k_l + 1)^2 + \sum_{i \ne l} \log(k_i + 1) + L + \log m_l (k_l + 1) n + \log \sum_i u_i,

    with :math:`u_i = (L + 1)^2 \log n (L + 1) (k_i + 1) m_i`: about 1 / width.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden widths and outputs.
    num_data : int
        n.

    Returns
    -------
    list of float
        lambda of hidden layers 1..L.
    """
    return _by_node(list(itertools.pairwise(widths)), num_data)


def svbnn_inclusion(widths: Sequence[int], num_data: int) -> float:
    r"""Prior inclusion of each weight, in a network of fully connected layers.

    .. math:: -\log\lambda = \log T + 0.1 [ (L + 2) \log \max_l m_l + \log(\sqrt{n} k_1) ]

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden widths and outputs.
    num_data : int
        n.
    """
    return _by_weight(list(itertools.pairwise(widths)), num_data)


def node_inclusion(model: nn.Module, num_data: int) -> dict[str, float]:
    """`jantre_inclusion` of every layer but the last, by name, without frozen ones; a convolution has its fan-in for k.

    (The authors give the convolutions of their LeNet the values of its fully connected layers, and every layer of a
    residual network 1e-4.)
    """
    layers = _layers(model)
    rates = dict(zip(layers, _by_node(list(layers.values()), num_data), strict=False))
    return {name: rate for name, rate in rates.items() if f"{name}.weight" in trainable(model)}


def weight_inclusion(model: nn.Module, num_data: int) -> float:
    """`svbnn_inclusion` of a network; a convolution has its fan-in for k."""
    return _by_weight(list(_layers(model).values()), num_data)


def _layers(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Fan-in and nodes of every layer, by name, in the order of the modules."""
    layers = ((name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return {name: (m.weight[0].numel(), len(m.weight)) for name, m in layers}


def _by_node(layers: Sequence[tuple[int, int]], num_data: int) -> list[float]:
    hidden, log_n = len(layers) - 1, math.log(num_data)
    u = [(hidden + 1) ** 2 * (log_n + math.log(hidden + 1) + math.log(k + 1) + math.log(m)) for k, m in layers]
    inclusion = []
    for index, (k, m) in enumerate(layers[:hidden]):
        others = sum(math.log(width + 1) for i, (width, _) in enumerate(layers) if i != index)
        theta = (k + 1) ** 2 + others + hidden + math.log(m) + math.log(k + 1) + log_n + math.log(sum(u))
        inclusion.append(math.exp(-math.log(m) - 1e-9 * (k + 1) * theta))
    return inclusion


def _by_weight(layers: Sequence[tuple[int, int]], num_data: int) -> float:
    parameters = sum((k + 1) * m for k, m in layers)
    depth = (len(layers) + 1) * math.log(max(m for _, m in layers[:-1]))
    return math.exp(-math.log(parameters) - 0.1 * (depth + math.log(math.sqrt(num_data) * layers[0][0])))
