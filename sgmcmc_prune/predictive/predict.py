"""The posterior predictive, streamed over draws: memory does not grow with the number of draws."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from sgmcmc_prune.data.batches import check_finite
from sgmcmc_prune.mask_check import check_mask

#: Examples of a forward pass: enough to fill an accelerator; on a CPU so few that its caches hold the activations of
#: small pictures.
BATCH, CPU_BATCH = 1000, 128


@dataclass(frozen=True)
class Predictive:
    r"""A mixture of predictions with equal weights.

    Attributes
    ----------
    probabilities : Tensor of float64, shape (n, classes)
        Mean of the members' softmax outputs, :math:`\bar p = \frac1S \sum_s p_s`.
    members : int
        S, the number of draws averaged.
    expected_entropy : Tensor of float64, shape (n,)
        Mean entropy of the members, :math:`\frac1S \sum_s H(p_s)`, in nats: the noise in the data.
    """

    probabilities: Tensor
    members: int
    expected_entropy: Tensor

    @property
    def mutual_information(self) -> Tensor:
        r"""Disagreement between members, :math:`H(\bar p) - \frac1S \sum_s H(p_s) \ge 0` in nats, shape (n,).

        References
        ----------
        Houlsby, Huszar, Ghahramani and Lengyel (2011), Bayesian active learning for classification, arXiv:1112.5745.
        """
        # Jensen makes it non-negative; rounding does not.
        return (_entropy(self.probabilities) - self.expected_entropy).clamp_min(0)

    def pooled(self, other: "Predictive") -> "Predictive":
        """The members of both."""
        return pool([self, other])


def predictive_of(logits: Tensor) -> Predictive:
    """The prediction of one network from its logits (n, classes)."""
    probabilities = _checked(logits).double().softmax(1)
    return Predictive(probabilities, 1, _entropy(probabilities))


def class_probabilities(model: nn.Module, inputs: Tensor, batch_size: int | None = None) -> Tensor:
    """Softmax outputs of one network in evaluation mode; the mode of every submodule is put back.

    The softmax is taken in float64, where a probability does not underflow before a logit gap of 708.

    Parameters
    ----------
    model : Module
        Gives logits of shape (batch, classes).
    inputs : Tensor, shape (n, ...)
        Moved to the model's device batch by batch.
    batch_size : int, optional
        Examples per forward pass, by default `BATCH` or `CPU_BATCH` of them.

    Returns
    -------
    Tensor of float64, shape (n, classes)
        On the model's device.

    Raises
    ------
    ValueError
        No inputs, a batch size below one, or logits that are not a matrix.
    """
    return _softmax_outputs(model, model, inputs, batch_size)


def outputs_of(model: nn.Module, inputs: Tensor, batch_size: int | None = None) -> Tensor:
    """Outputs of one network in evaluation mode; the mode of every submodule is put back.

    Parameters
    ----------
    model : Module
    inputs : Tensor, shape (n, ...)
        Moved to the model's device batch by batch.
    batch_size : int, optional
        Examples per forward pass, by default `BATCH` or `CPU_BATCH` of them.

    Returns
    -------
    Tensor, shape (n, outputs)
        On the model's device.

    Raises
    ------
    ValueError
        No inputs, a batch size below one, or outputs that are not finite.
    """
    return _as_rows(_logits(model, model, inputs, batch_size))


def outputs_of_draws(
    model: nn.Module,
    draws: Iterable[Mapping[str, Tensor]],
    inputs: Tensor,
    mask: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Outputs of a network with each of some weights, in one batched pass: for small networks.

    Parameters
    ----------
    model : Module
    draws, inputs, mask, batch_size
        As of `posterior_predictive`.

    Returns
    -------
    Tensor, shape (draws, n, outputs)
        Equal to those of `outputs_of` to rounding.
    """
    mask = check_mask(mask or {}, dict(model.named_parameters()))
    weights = [_weights(model, draw, mask) for draw in draws]
    outputs = _logits(model, _forward_all(model, weights), inputs, batch_size).movedim(-1, 0)
    return torch.stack([_as_rows(each) for each in outputs])


def _as_rows(outputs: Tensor) -> Tensor:
    check_finite("outputs", outputs)
    return outputs.unsqueeze(-1).flatten(1)


def posterior_predictive(
    model: nn.Module,
    draws: Iterable[Mapping[str, Tensor]],
    inputs: Tensor,
    mask: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
    draws_at_once: int = 1,
) -> Predictive:
    r"""Average the softmax outputs over draws, :math:`p(y | x) = \frac1S \sum_s \mathrm{softmax}(f(x; w_s))`.

    Draws are consumed a few at a time and may come from a generator. Their weights are lent to `model` by
    `torch.func.functional_call`: unlike `load_state_dict` this copies nothing and leaves the caller's parameters alone,
    also after an error.

    Parameters
    ----------
    model : Module
        The network that was sampled; supplies the architecture, and buffers that a draw does not hold.
    draws : iterable of mappings from name to Tensor
        Each holds every parameter, and buffers if they differ between draws (BatchNorm statistics). Tensors are cast
        to the model's dtype and device.
    inputs : Tensor, shape (n, ...)
        Moved to the model's device batch by batch.
    mask : mapping from name to BoolTensor, optional
        True = kept. Masked entries are exactly zero.
    batch_size : int, optional
        Examples per forward pass, by default `BATCH` or `CPU_BATCH` of them.
    draws_at_once : int
        Draws that share a forward pass, batched by `torch.func.vmap`: for small networks on a GPU, which one draw
        leaves idle. Memory grows with it; results differ by rounding.

    Returns
    -------
    Predictive
        On the model's device.

    Raises
    ------
    TypeError
        A mask that is not boolean.
    ValueError
        No draws; names or shapes of a draw or of the mask that do not fit the model; `draws_at_once` below one; and as
        `class_probabilities`.
    """
    mask = check_mask(mask or {}, dict(model.named_parameters()))
    _check_count("draws_at_once", draws_at_once)
    if isinstance(draws, Mapping):
        raise TypeError("draws is one mapping; give an iterable of them, one for each draw: [draw]")
    total = expected_entropy = torch.zeros(())
    members = 0
    weights = (_weights(model, draw, mask) for draw in draws)
    for probabilities in _member_probabilities(model, weights, inputs, batch_size, draws_at_once):
        total = total + probabilities
        expected_entropy = expected_entropy + _entropy(probabilities)
        members += 1
    if members == 0:
        raise ValueError("the posterior predictive needs at least one draw, and draws held none")
    return Predictive(total / members, members, expected_entropy / members)


def _member_probabilities(
    model: nn.Module, weights: Iterable[dict[str, Tensor]], inputs: Tensor, batch_size: int | None, at_once: int
) -> Iterator[Tensor]:
    """Softmax outputs of the model with each of the weights, a few taken at once."""
    remaining = iter(weights)
    while together := list(islice(remaining, at_once)):
        yield from _together(model, together, inputs, batch_size)


def _together(
    model: nn.Module, weights: list[dict[str, Tensor]], inputs: Tensor, batch_size: int | None
) -> Iterable[Tensor]:
    """Softmax outputs of the model with each of some weights; several share one batched pass."""
    if len(weights) == 1:
        return [_softmax_outputs(model, partial(functional_call, model, weights[0]), inputs, batch_size)]
    outputs = _logits(model, _forward_all(model, weights), inputs, batch_size).movedim(-1, 0)
    return (_checked(logits).double().softmax(1) for logits in outputs)


def _forward_all(model: nn.Module, weights: Sequence[Mapping[str, Tensor]]) -> Callable[[Tensor], Tensor]:
    """A batch to the outputs of the model with each of the weights, the members last so that batches can be joined."""
    stacked = {name: torch.stack([each[name] for each in weights]) for name in weights[0]}

    def forward(batch: Tensor) -> Tensor:
        outputs = vmap(lambda own: functional_call(model, own, batch))(stacked)
        return torch.as_tensor(outputs).movedim(0, -1)

    return forward


@contextmanager
def one_by_one_is_an_error() -> Iterator[None]:
    """Make an error of torch's warning that an operation is done one by one, for want of a rule for batches."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*batching rule", UserWarning)
        yield


def pool(predictives: Iterable[Predictive]) -> Predictive:
    r"""Pool chains in function space, :math:`\bar p = \sum_c S_c \bar p_c / \sum_c S_c`, as if all draws were one set.

    Chains may have masks of their own: only their predictions are averaged.

    Parameters
    ----------
    predictives : iterable of Predictive
        Of the same inputs, in the same order.

    Returns
    -------
    Predictive
        With the members of all.

    Raises
    ------
    ValueError
        Nothing to pool, or predictions of different shapes.
    """
    parts = list(predictives)
    shapes = {tuple(part.probabilities.shape) for part in parts}
    if len(shapes) != 1:
        raise ValueError(
            f"pool needs one or more predictives of one shape, not {len(parts)} of shapes {sorted(shapes)}"
        )
    members = sum(part.members for part in parts)
    probabilities = torch.stack([part.probabilities * part.members for part in parts]).sum(0) / members
    expected_entropy = torch.stack([part.expected_entropy * part.members for part in parts]).sum(0) / members
    return Predictive(probabilities, members, expected_entropy)


def _softmax_outputs(
    model: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int | None
) -> Tensor:
    """Softmax of `forward`, which runs `model` with some weights, over all inputs."""
    return _checked(_logits(model, forward, inputs, batch_size)).double().softmax(1)


def _logits(model: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int | None) -> Tensor:
    """Outputs of `forward` over all inputs, batch by batch, in evaluation mode."""
    if not hasattr(inputs, "split") or isinstance(inputs, str):
        raise TypeError(f"inputs are of type {type(inputs).__name__}; give a tensor: torch.as_tensor(inputs)")
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least one example")
    like = next(model.parameters(), torch.empty(0, device=inputs.device))
    size = (CPU_BATCH if like.device.type == "cpu" else BATCH) if batch_size is None else batch_size
    _check_count("batch_size", size)
    with evaluation_mode(model), torch.no_grad():
        return torch.cat([_tensor(forward(_fitted(batch, like))) for batch in inputs.split(size)])


def _fitted(batch: Tensor, like: Tensor) -> Tensor:
    """Inputs on the network's device and, if they are real numbers, of its type: NumPy makes float64."""
    return batch.to(like) if batch.dtype.is_floating_point else batch.to(like.device)


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} is {value}; it must be an integer, at least 1")


def _tensor(outputs: object) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the model returns a {type(outputs).__name__}; it must return one tensor of logits")
    return outputs


def _checked(logits: Tensor) -> Tensor:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"class probabilities need logits of shape (batch, classes) with two classes or more, and the model gives "
            f"{tuple(logits.shape)}; of a regression average the outputs themselves"
        )
    check_finite("logits", logits)
    return logits


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every submodule back into its own mode at the end: some may be frozen by design."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode for a while, as its own `eval` does that."""
    with modes_kept(model):
        model.eval()
        yield


def _weights(model: nn.Module, draw: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fit a draw to the model's dtype and device, with masked entries exactly zero (even where the draw is NaN)."""
    parameters = dict(model.named_parameters())
    slots = parameters | dict(model.named_buffers())
    if not parameters.keys() <= draw.keys() <= slots.keys():
        missing, unknown = sorted(parameters.keys() - draw.keys()), sorted(draw.keys() - slots.keys())
        raise ValueError(f"a draw must hold the model's parameters by name: missing {missing}, unknown {unknown}")
    weights = {}
    for name, value in draw.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} in a draw is of type {type(value).__name__}; give tensors: torch.as_tensor(value)")
        if value.shape != slots[name].shape:
            raise ValueError(
                f"{name} in a draw has shape {tuple(value.shape)}; the model's is {tuple(slots[name].shape)}"
            )
        value = value.to(slots[name])
        weights[name] = value.masked_fill(~mask[name].to(value.device), 0) if name in mask else value
    return weights


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each row in nats, with 0 log 0 = 0."""
    return torch.special.entr(probabilities).sum(1)
