"""First-order Taylor importance: how much the loss would change, to first order, if a unit's weights were zero.

References
----------
Molchanov, Mallya, Tyree, Frosio, Kautz: Importance estimation for neural network pruning (CVPR 2019), equation (8).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sgmcmc_prune.priors.groups import GroupMap


class Taylor:
    r"""A running mean over minibatches of the squared first-order change of the loss.

    .. math:: I_g = \overline{\left(\sum_{i \in g} \frac{\partial L}{\partial w_i} w_i\right)^2}

    Parameters
    ----------
    groups : mapping of str to GroupMap
        The units, by parameter name.
    decay : float
        Of the running mean, in [0, 1); 1 / (1 - decay) minibatches count.
    """

    def __init__(self, groups: Mapping[str, GroupMap], decay: float = 0.9) -> None:
        self.groups, self.decay = groups, decay
        self._means: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self, weights: Mapping[str, Tensor]) -> None:
        """Add a minibatch, whose gradients the weights hold."""
        for name, group in self.groups.items():
            gradient = weights[name].grad
            assert gradient is not None, f"{name} is trained"
            change = group.sum(gradient * weights[name]).double().square()
            self._means[name] = change.lerp(self._means.get(name, change), self.decay)

    def __call__(self, weights: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> dict[str, Tensor]:
        """The importances so far, shape (G,), float64."""
        return {name: self._means[name] for name in groups}
