r"""Curvature of the training loss: generalised Gauss-Newton, exact or Monte-Carlo, or empirical Fisher.

For outputs f_n and negative log-likelihood l_n, all three have the form

    H = sum_n J_n' S_n S_n' J_n,        J_n = df_n / dw,

- `ggn`: S S' = d^2 l_n / df^2, column by column, C backward passes per example;
- `monte_carlo`: S xi with random signs xi, whose second moment is S S': one pass, unbiased;
- `empirical`: S = dl_n / df at the observed target: one pass; it vanishes as the training loss does.

Each column is one backward pass from the outputs to every layer, in evaluation mode, summed over *all* the data. The
temperature is not part of H.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.laplace.blocks import Block, DiagonalBlock, KroneckerBlock
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.likelihoods.roots import Estimator, output_roots
from sgmcmc_prune.models import layers as rules
from sgmcmc_prune.predictive.predict import evaluation_mode

Structure = Literal["diagonal", "kfac"]


@dataclass(frozen=True)
class Curvature:
    """Curvature at one set of weights.

    Attributes
    ----------
    blocks : dict of str to Block
        One block per parameter tensor.
    log_likelihood : float
        sum_n log p(y_n | f_n) at these weights.
    gradient_evaluations : int
        Backward passes of one example that it took.
    """

    blocks: Mapping[str, Block]
    log_likelihood: float
    gradient_evaluations: int


def curvature(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    structure: Structure = "diagonal",
    estimator: Estimator = "ggn",
    likelihood: Likelihood = categorical,
    batch_size: int = 256,
    skip: Collection[str] = (),
    seed: int = 0,
    num_data: int | None = None,
) -> Curvature:
    """Compute the curvature of the summed negative log-likelihood at the model's weights.

    Parameters
    ----------
    model : Module
        Its submodules keep their modes; the pass itself runs in evaluation mode.
    inputs, targets : Tensor, shape (n, ...)
        All the training data, or a random part of them.
    structure : {"diagonal", "kfac"}
        diag(H), exact for the estimator, or one Kronecker product per weight: B = sum_nr g g' and A = mean_nr a a' over
        examples n and positions r, so that B (x) A has the scale of H. A bias has its exact block.
    estimator : {"ggn", "monte_carlo", "empirical"}
    likelihood : callable
        (outputs, targets) -> negative log-likelihood of each example.
    batch_size : int
        Examples per pass; the result does not depend on it.
    skip : collection of str
        Modules without curvature.
    seed : int
        Of the signs of `monte_carlo`.
    num_data : int, optional
        Number of all training examples, where `inputs` are a part: sums are scaled to stand for all of them.

    Returns
    -------
    Curvature

    Raises
    ------
    ValueError
        For an unknown choice, a layer without a rule, or a singular curvature; the message names the layer.
    """
    _check_choice("structure", structure, Structure)
    _check_choice("estimator", estimator, Estimator)
    found = rules.find_layers(model, skip)
    sums = {layer.weight: (_DiagonalSum if structure == "diagonal" else _KroneckerSum)(layer) for layer in found}
    generator = torch.Generator().manual_seed(seed)
    log_likelihood, passes = 0.0, 0
    with evaluation_mode(model), torch.enable_grad():
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            with rules.record(found) as calls:
                outputs = model(x)
            log_likelihood -= float(likelihood(outputs, y).detach().double().sum())
            roots = output_roots(estimator, likelihood, outputs.detach(), y, generator)
            _add_batch(found, sums, calls, outputs, roots)
            passes += len(x) * len(roots)
    scale = 1.0 if num_data is None else num_data / len(inputs)
    blocks = {name: block for total in sums.values() for name, block in total.blocks(scale).items()}
    return Curvature(blocks, scale * log_likelihood, passes)


def _add_batch(
    found: list[rules.Layer],
    sums: Mapping[str, "_DiagonalSum | _KroneckerSum"],
    calls: Mapping[str, list[tuple[Tensor, Tensor]]],
    outputs: Tensor,
    roots: Tensor,
) -> None:
    used = [layer for layer in found if calls[layer.weight]]
    a = {la.weight: torch.cat([rules.positions(la, x) for x, _ in calls[la.weight]], 1) for la in used}
    for layer in used:
        sums[layer.weight].add_inputs(a[layer.weight])
    flat = [(layer, z) for layer in used for _, z in calls[layer.weight]]
    for root in roots:
        gradients = torch.autograd.grad(outputs, [z for _, z in flat], root, retain_graph=True)
        g: dict[str, list[Tensor]] = {layer.weight: [] for layer in used}
        for (layer, _), gradient in zip(flat, gradients, strict=True):
            g[layer.weight].append(rules.gradient_positions(layer, gradient))
        for name, parts in g.items():
            sums[name].add_gradients(a[name], torch.cat(parts, 1))


class _DiagonalSum:
    """Running sums of squared gradients of one layer, float64."""

    def __init__(self, layer: rules.Layer) -> None:
        self.layer = layer
        self.weight = torch.zeros_like(layer.module.weight, dtype=torch.float64, requires_grad=False)
        self.bias = self.weight.new_zeros(len(self.weight))

    def add_inputs(self, a: Tensor) -> None:
        """Nothing to keep: the inputs are used with each gradient."""

    def add_gradients(self, a: Tensor, g: Tensor) -> None:
        self.weight += rules.sum_of_squared_gradients(a, g).view_as(self.weight)
        self.bias += g.sum(1).square().sum(0)

    def blocks(self, scale: float) -> dict[str, Block]:
        named = {self.layer.weight: self.weight} | ({self.layer.bias: self.bias} if self.layer.bias else {})
        return {name: DiagonalBlock(name, scale * value) for name, value in named.items()}


class _KroneckerSum:
    """Running sums of the Kronecker factors of one layer, float64."""

    def __init__(self, layer: rules.Layer) -> None:
        self.layer = layer
        weight = layer.module.weight.detach().double().flatten(1)
        self.inputs = weight.new_zeros(weight.shape[1], weight.shape[1])
        self.outputs, self.bias = (weight.new_zeros(len(weight), len(weight)) for _ in range(2))
        self.count = 0

    def add_inputs(self, a: Tensor) -> None:
        rows = a.reshape(-1, a.shape[-1])
        self.inputs += rows.T @ rows
        self.count += len(rows)

    def add_gradients(self, a: Tensor, g: Tensor) -> None:
        rows, summed = g.reshape(-1, g.shape[-1]), g.sum(1)
        self.outputs += rows.T @ rows
        self.bias += summed.T @ summed

    def blocks(self, scale: float) -> dict[str, Block]:
        weight, bias = self.layer.weight, self.layer.bias
        inputs, outputs = self.inputs / max(1, self.count), scale * self.outputs
        found: dict[str, Block] = {weight: KroneckerBlock(weight, inputs, outputs)}
        return found | ({bias: KroneckerBlock(bias, self.bias.new_ones(1, 1), scale * self.bias)} if bias else {})


def _check_choice(what: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{what} is {value!r}; choose one of {', '.join(get_args(choices))}")
