r"""The parts of a recurrent layer (`nn.RNN`, `nn.GRU`, `nn.LSTM`), and which of its units are zero at every step.

Of each depth and direction, one part reads the inputs x and one the states h of the step before. With
:math:`a = W_{ih} x + b_{ih} + W_{hh} h + b_{hh}` of the rows that *drive* a unit (a GRU multiplies the last two terms
by a gate), a unit's next state is

    RNN   h' = tanh(a) or relu(a)
    GRU   h' = (1 - z) tanh(a) + z h
    LSTM  c' = f c + i tanh(a),  h' = o tanh(c').

States begin at zero. So units whose driving rows have no bias, and read zeros and one another alone, are zero at every
step, whatever their gates do. Any other unit that reads no input still changes from step to step.
"""

import torch
from torch import Tensor, nn


def directions(layer: nn.RNNBase) -> list[list[str]]:
    """What the names of the parts end with, by depth: of each direction one, as "l1_reverse"."""
    return [[f"l{depth}", f"l{depth}_reverse"][: 1 + layer.bidirectional] for depth in range(layer.num_layers)]


def num_gates(layer: nn.RNNBase) -> int:
    """How many rows of each weight make one unit."""
    return {"GRU": 3, "LSTM": 4}.get(layer.mode, 1)


def has_computed_weights(layer: nn.Module) -> bool:
    """Whether a recurrent layer computes weights from other parameters, as under a weight or spectral normalisation."""
    return isinstance(layer, nn.RNNBase) and not all(
        isinstance(weight, nn.Parameter) for weights in layer.all_weights for weight in weights
    )


def zero_units(layer: nn.RNNBase, end: str, inputs: Tensor) -> Tensor:
    """Which units are zero at every step.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    end : str
        Of the names of the parts, as "l0".
    inputs : Tensor, shape (inputs,)
        What each input is if that is the same for every input at every step; NaN elsewhere.

    Returns
    -------
    bool Tensor, shape (hidden_size,)
    """
    weights, states = (_driving(getattr(layer, f"weight_{part}_{end}"), layer) for part in ("ih", "hh"))
    driven = (weights[:, inputs.cpu() != 0] != 0).any(1)
    if layer.bias:
        for part in ("ih", "hh"):
            driven |= _driving(getattr(layer, f"bias_{part}_{end}"), layer) != 0
    while True:
        reached = driven | (states[:, driven] != 0).any(1)
        if torch.equal(reached, driven):
            return ~driven
        driven = reached


def _driving(rows: Tensor, layer: nn.RNNBase) -> Tensor:
    """Of the rows of all gates those that drive the units."""
    gates = num_gates(layer)
    return rows.detach().cpu().chunk(gates)[min(2, gates - 1)]
