r"""Curvatures of a layer by name: what the negative log-likelihood says of the weights of each block together.

With the inputs a_nr of a layer at the positions r of example n (a one appended for the bias) and the gradient g_nr at
its outputs, the gradient of row o is J_no = sum_r g_nro a_nr, and

- `gram`: H_o = sum_nr a_nr a_nr', the same for all rows: the squared error of the layer's own outputs;
- `kfac`: H_o = B_oo A, with A = mean_nr a a' and B_oo = sum_nr g_nro^2;
- `ggn`: H_o = sum_n J_no J_no' with g from the curvature at the network's outputs (one random sign each): all that the
  generalised Gauss-Newton matrix says within a row;
- `fisher`: H_b = sum_n J_nb J_nb' with g at the observed targets, of consecutive weights: the block-wise empirical
  Fisher matrix.

The first two neglect what the last two do not, and need one matrix for a layer instead of one for each row.

References
----------
Frantar, Singh, Alistarh: Optimal brain compression (NeurIPS 2022), for `gram`.
Martens, Grosse: Optimizing neural networks with Kronecker-factored approximate curvature (ICML 2015), for `kfac`.
Singh, Alistarh: WoodFisher (NeurIPS 2020), for `fisher`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.likelihoods.base import Likelihood
from sgmcmc_prune.likelihoods.roots import Estimator, output_roots
from sgmcmc_prune.models import layers as rules
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.pruning.conditional.blocks import Blocks, Layout
from sgmcmc_prune.pruning.masked import put_on

#: Examples in a pass.
BATCH = 250
#: The largest curvature of one layer, in bytes.
MAX_BYTES = 4 * 2**30


class LayerSum(Protocol):
    """Sums over examples of what a layer's curvature is made of."""

    #: What the backward pass starts from; None: it needs none.
    estimator: ClassVar[Estimator | None]

    def add(self, a: Tensor, g: Tensor | None) -> None:
        """Add some examples: inputs (n, R, I), with ones if there is a bias, and gradients (n, R, O)."""

    def blocks(self, scale: float) -> Blocks:
        """What was added, times a number."""


class Gram:
    """sum a a'; `damp` adds so much of its mean diagonal, which stands for a prior where there is none."""

    estimator: ClassVar[Estimator | None] = None

    def __init__(self, layer: rules.Layer, damp: float = 0.0) -> None:
        if not (isinstance(damp, int | float) and 0 <= damp < math.inf):
            raise ValueError(f"option damp of a curvature is {damp!r}; it must be a finite number, at least 0")
        self.layout, self.damp = Layout(layer), damp
        weight, inputs = layer.module.weight, layer.module.weight[0].numel() + (layer.bias is not None)
        self.matrix = torch.zeros(1, inputs, inputs, dtype=torch.float64, device=weight.device)
        self.scale = torch.ones(len(weight), dtype=torch.float64, device=weight.device)

    def add(self, a: Tensor, g: Tensor | None) -> None:
        """One product of matrices."""
        rows = a.reshape(-1, a.shape[-1])
        self.matrix += rows.T @ rows

    def blocks(self, scale: float) -> Blocks:
        """One matrix for all rows."""
        matrix = self.matrix.clone()
        matrix.diagonal(dim1=1, dim2=2).add_(self.damp * matrix.diagonal(dim1=1, dim2=2).mean())
        return Blocks(self.layout, matrix, scale * self.scale)


class Kfac(Gram):
    """sum g^2 times mean a a'."""

    estimator: ClassVar[Estimator | None] = "monte_carlo"

    def __init__(self, layer: rules.Layer) -> None:
        super().__init__(layer)
        self.scale.zero_()
        self.count = 0

    def add(self, a: Tensor, g: Tensor | None) -> None:
        """Both factors."""
        assert g is not None, "it asks for gradients"
        super().add(a, g)
        self.scale += g.double().square().sum((0, 1))
        self.count += a.shape[0] * a.shape[1]

    def blocks(self, scale: float) -> Blocks:
        """The mean of the inputs' products, times the sum of the squared gradients of each row."""
        return Blocks(self.layout, self.matrix / max(1, self.count), scale * self.scale)


class Ggn:
    """sum J J' of each row, or of so many consecutive weights."""

    estimator: ClassVar[Estimator | None] = "monte_carlo"

    def __init__(self, layer: rules.Layer, size: int | None = None) -> None:
        if size is not None and not (isinstance(size, int) and size >= 1):
            raise ValueError(f"option size of a curvature is {size!r}; it must be a number of weights, at least 1")
        self.layout, weight = Layout(layer, size), layer.module.weight
        rows, inputs = len(weight), weight[0].numel()
        count, d = (rows, inputs + (layer.bias is not None)) if size is None else (-(-rows * inputs // size), size)
        if 8 * count * d**2 > MAX_BYTES:
            raise ValueError(
                f"curvature of {layer.weight!r}: {count} blocks of {d} weights take {8e-9 * count * d**2:.0f} GB; "
                "choose kfac or gram, or smaller blocks of consecutive weights by size=50, say"
            )
        self.matrix = torch.zeros(count, d, d, dtype=torch.float64, device=weight.device)

    def add(self, a: Tensor, g: Tensor | None) -> None:
        """The gradients of each example, and their outer products within a block."""
        assert g is not None, "it asks for gradients"
        each = self.layout.examples(torch.einsum("nro,nri->noi", g, a)).transpose(0, 1)
        self.matrix += each.transpose(1, 2) @ each

    def blocks(self, scale: float) -> Blocks:
        """A matrix for each block."""
        return Blocks(self.layout, self.matrix, torch.full_like(self.matrix[:, 0, 0], scale))


class Fisher(Ggn):
    """sum J J' at the observed targets, of so many consecutive weights."""

    estimator: ClassVar[Estimator | None] = "empirical"

    def __init__(self, layer: rules.Layer, size: int = 50) -> None:
        super().__init__(layer, size)


def make(name: str, options: dict[str, Any]) -> Callable[[rules.Layer], LayerSum]:
    """What starts the sums of a layer by a curvature's name: one of ours, or a user's own."""
    return lambda layer: choices.make("curvature", name, layer, **options)


def curvature(
    model: nn.Module,
    draws: Sequence[Mapping[str, Tensor]],
    examples: tuple[Tensor, Tensor],
    layers: Sequence[rules.Layer],
    start: Callable[[rules.Layer], LayerSum],
    *,
    likelihood: Likelihood,
    num_data: int,
    statistics: Callable[[], Sequence[Tensor]] = tuple,
    seed: int = 0,
) -> dict[str, Blocks]:
    """The curvature of the summed negative log-likelihood of all training examples, averaged over draws.

    Parameters
    ----------
    model : Module
        The architecture; it runs in evaluation mode, and keeps the weights of the last draw.
    draws : sequence of mapping of str to Tensor
        The states of networks, as `network_state` gives them; each sees its share of the examples. Of more draws than
        examples every k-th sees one.
    examples : tuple of Tensor
        Inputs and targets of a random part of the training examples, or of all.
    layers : sequence of Layer
        Those of the model that get a curvature.
    start : callable
        As `make` gives it.
    likelihood : callable
    num_data : int
        N, the number of all training examples, for which the sums are scaled to stand.
    statistics : callable
        Gives the inputs for the statistics of batch normalisation, where the network has any.
    seed : int
        Of the signs of `monte_carlo`.

    Returns
    -------
    dict of str to Blocks
        By the name of the weight.
    """
    inputs, targets = examples
    draws = draws[:: math.ceil(len(draws) / len(inputs))]
    sums = {layer.weight: start(layer) for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    shares = zip(draws, inputs.tensor_split(len(draws)), targets.tensor_split(len(draws)), strict=True)
    with evaluation_mode(model):
        for draw, own_inputs, own_targets in shares:
            put_on(model, draw, {}, statistics)
            for x, y in zip(own_inputs.split(BATCH), own_targets.split(BATCH), strict=True):
                _add(model, x, y, layers, sums, likelihood, generator)
    return {name: total.blocks(num_data / len(inputs)) for name, total in sums.items()}


def _add(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layers: Sequence[rules.Layer],
    sums: dict[str, LayerSum],
    likelihood: Likelihood,
    generator: torch.Generator,
) -> None:
    """One pass forward, and one backward for each root."""
    estimator = next(iter(sums.values())).estimator
    with torch.set_grad_enabled(estimator is not None), rules.record(layers) as calls:
        outputs = model(x)
    a = {layer.weight: _inputs(layer, [x for x, _ in calls[layer.weight]]) for layer in layers if calls[layer.weight]}
    if estimator is None:
        for name, inputs in a.items():
            sums[name].add(inputs, None)
        return
    flat = [(layer, z) for layer in layers for _, z in calls[layer.weight]]
    for root in output_roots(estimator, likelihood, outputs.detach(), y, generator):
        gradients = torch.autograd.grad(outputs, [z for _, z in flat], root, retain_graph=True)
        for name, inputs in a.items():
            parts = [
                rules.gradient_positions(layer, each)
                for (layer, _), each in zip(flat, gradients, strict=True)
                if layer.weight == name
            ]
            sums[name].add(inputs, torch.cat(parts, 1))


def _inputs(layer: rules.Layer, calls: Sequence[Tensor]) -> Tensor:
    """The inputs of all calls at each position, (n, R, I), with a one for the bias."""
    a = torch.cat([rules.positions(layer, x) for x in calls], 1)
    return a if layer.bias is None else F.pad(a, (0, 1), value=1.0)
