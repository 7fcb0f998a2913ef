"""A rehearsal of one network before a chain starts: what cannot work is refused, what departs is found by running.

The network is passed forward on a few examples, again with the same and with other random numbers, again with half of
them, and backward once. Nothing of the network or of the random generators is changed.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sgmcmc_prune.data.batches import check_finite
from sgmcmc_prune.likelihoods import Categorical, Likelihood, ObservationModel, check_targets
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.likelihoods.rehearsal import rehearse_scores
from sgmcmc_prune.models.state import copied, network_state
from sgmcmc_prune.predictive.predict import evaluation_mode, modes_kept
from sgmcmc_prune.pruning import batchnorm
from sgmcmc_prune.pruning.prunable import output_weights, trainable, why_not_prunable

#: Relative differences below this are rounding.
ROUNDING = 1e-4
#: Examples that a rehearsal takes.
EXAMPLES = 16


@dataclass(frozen=True)
class Rehearsal:
    """What was found.

    Attributes
    ----------
    output_shape : tuple of int
        Of one example.
    prunable : tuple of str
        Weights that may be masked.
    not_prunable : dict of str to str
        The other parameters, and why.
    outputs : tuple of str
        Weights whose units are the network's outputs: whole units of these are never pruned.
    departures : tuple of str
        In which ways the likelihood is not a product over examples of one network's, in words.
    """

    output_shape: tuple[int, ...]
    prunable: tuple[str, ...]
    not_prunable: dict[str, str]
    outputs: tuple[str, ...]
    departures: tuple[str, ...]

    def lines(self) -> list[str]:
        """What was found, in words, for `audit`."""
        why: dict[str, list[str]] = {}
        for name, reason in self.not_prunable.items():
            why.setdefault(reason, []).append(name)
        return [
            f"outputs of one example have shape {self.output_shape}",
            f"prunable: {', '.join(self.prunable) or 'nothing'}",
            *(f"not prunable ({reason}): {', '.join(names)}" for reason, names in why.items()),
            f"whole units are never pruned of: {', '.join(self.outputs) or 'no weight'}",
        ]


def rehearse(model: nn.Module, inputs: Tensor, targets: Tensor, likelihood: Likelihood, num_outputs: int) -> Rehearsal:
    """Run a network forward and backward, and say what can be done with it.

    Parameters
    ----------
    model : nn.Module
    inputs, targets : Tensor
        Training examples, at most `EXAMPLES` of which are used.
    likelihood : Likelihood
        Negative log-likelihood of each example.
    num_outputs : int
        Numbers that the network must give for each example.

    Returns
    -------
    Rehearsal

    Raises
    ------
    ValueError
        For a network that cannot be sampled, or a likelihood that cannot score what it predicts, in one line.
    TypeError
        For a score that is no number.
    """
    check_targets(likelihood, targets)
    inputs, targets = inputs[:EXAMPLES], targets[:EXAMPLES]
    check_finite("inputs", inputs)
    _check_parameters(model)
    with unchanged(model), training_mode(model):
        torch.default_generator.manual_seed(0)  # a network that is random is judged by the same draws every time
        with evaluation_mode(model):
            evaluated = _outputs(model, inputs, num_outputs)
            _check_logits(likelihood, evaluated.detach())
            _check_gradients(model, likelihood(evaluated.float(), targets), len(inputs), complete=True)
            _check_each_alone(likelihood, evaluated.detach().float(), targets)
            if isinstance(likelihood, ObservationModel):
                rehearse_scores(likelihood, evaluated.detach().float(), targets)
        outputs = _outputs(model, inputs, num_outputs)
        _check_leaves(model, outputs)
        _check_state(model)
        _check_gradients(model, likelihood(outputs.float(), targets), len(inputs), complete=False)
        _check_functional(model, inputs)
        parameters = dict(model.named_parameters())
        reasons = {name: why_not_prunable(model, name, p) for name, p in parameters.items()}
        return Rehearsal(
            tuple(outputs.shape[1:]),
            tuple(name for name, reason in reasons.items() if not reason),
            {name: reason for name, reason in reasons.items() if reason},
            tuple(sorted(output_weights(model, inputs))),
            (*(random := _randomness(model, inputs)), *_interaction(model, inputs, bool(random))),
        )


@torch.no_grad()
def check_lookups(model: nn.Module, inputs: Tensor, what: str) -> None:
    """ValueError where inputs are integers for which a network has no entry, such as tokens outside its embedding.

    Parameters
    ----------
    model : nn.Module
    inputs : Tensor, shape (n, ...)
        All of them; those with the smallest and the largest integer at each place are passed forward.
    what : str
        They are, for the error.
    """
    if not isinstance(inputs, Tensor) or inputs.is_floating_point() or not len(inputs):
        return
    flat = inputs.flatten(1)
    chosen = inputs[torch.cat([flat.argmin(0), flat.argmax(0)]).unique()].cpu()
    network = copy.deepcopy(model).cpu().eval()  # a GPU does not raise: it ends the process
    try:
        with torch.random.fork_rng(devices=[]):
            for batch in chosen.split(EXAMPLES):
                network(batch)
    except IndexError as error:
        raise ValueError(
            f"{what} hold integers from {int(flat.min())} to {int(flat.max())}, and the network has no entry for some "
            f"of them ({error}); an embedding needs one for every token"
        ) from error


def _check_parameters(model: nn.Module) -> None:
    """Refuse parameters that no sampler can move."""
    for name, p in model.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name!r} has no shape yet; pass one batch through the network before it is returned")
        if not p.numel():
            raise ValueError(f"{name!r} has shape {tuple(p.shape)}, no entry to sample; take it out of the network")
        if p.requires_grad and p.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name!r} is {p.dtype}; samplers move float32 and float64 (lower precision: autocast)")


def _outputs(model: nn.Module, inputs: Tensor, num_outputs: int) -> Tensor:
    before = inputs.clone()
    try:
        outputs = model(inputs)
    except Exception as error:  # a user's forward may raise anything
        reason = (str(error).splitlines() or [""])[0]
        hint = "" if inputs.is_floating_point() else " (integers stay integers; a network of numbers needs floats)"
        raise ValueError(
            f"the network fails on {len(inputs)} training examples, shape {tuple(inputs.shape)} and {inputs.dtype}: "
            f"{type(error).__name__}: {reason}{hint}"
        ) from error
    if not torch.equal(before, inputs):
        inputs.copy_(before)
        raise ValueError("the network changes its inputs, the data, in place; work on a copy (relu, not relu_)")
    if not isinstance(outputs, Tensor):
        parts = f" of {len(outputs)}" if isinstance(outputs, Sequence) else ""
        raise ValueError(
            f"the network returns a {type(outputs).__name__}{parts}; it must return one tensor, shape "
            f"(examples, {num_outputs})"
        )
    if num_outputs == 1 and outputs.shape == (len(inputs),):
        outputs = outputs.unsqueeze(1)
    if outputs.shape != (len(inputs), num_outputs):
        if isinstance(model, LearnedNoise):  # the user knows the shape without the noise
            outputs, num_outputs = model.network(inputs), len(model.log_noise)
        raise ValueError(
            f"for {len(inputs)} examples the network returns shape {tuple(outputs.shape)}; it must be "
            f"({len(inputs)}, {num_outputs})"
        )
    if not bool(outputs.isfinite().all()):
        raise ValueError("the network returns numbers that are not finite at its random start, on training examples")
    if not outputs.requires_grad:
        raise ValueError(
            "the outputs depend on no trained parameter; every one has requires_grad False, or is detached"
        )
    return outputs


def _check_leaves(model: nn.Module, outputs: Tensor) -> None:
    """Refuse outputs that depend on a trained tensor which the network does not know."""
    known = {id(p) for p in model.parameters()}
    ahead, seen = [outputs.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = node.variable if type(node).__name__ == "AccumulateGrad" else None  # type: ignore[attr-defined]
        if leaf is not None and id(leaf) not in known:
            raise ValueError(
                f"the outputs depend on a tensor of shape {tuple(leaf.shape)} that wants a gradient and is no "
                "parameter of the network; keep layers in nn.ModuleList, tensors in nn.Parameter"
            )
        ahead += [following for following, _ in node.next_functions]


def _check_functional(model: nn.Module, inputs: Tensor) -> None:
    """Refuse a network that cannot be run with other weights than its own: the measurements of a chain do that."""
    try:
        with unchanged(model), torch.no_grad():
            functional_call(model, dict(model.named_parameters()), (inputs,))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the network cannot be run with given weights ({reason}); return the plain module") from error


def _check_logits(likelihood: Likelihood, outputs: Tensor) -> None:
    """Refuse probabilities where logits are wanted: their softmax would be taken again."""
    sums = outputs.sum(1)
    if (
        isinstance(likelihood, Categorical)
        and bool((outputs >= 0).all())
        and relative(torch.ones_like(sums), sums) < ROUNDING
    ):
        raise ValueError(
            "the network returns probabilities, rows that sum to 1; it must return logits: leave out its softmax"
        )


def _check_state(model: nn.Module) -> None:
    """Refuse a network whose draws could not be put back into a copy of it."""
    named = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    named |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    if strange := [
        name for name, value in model.state_dict().items() if name not in named or not torch.is_tensor(value)
    ]:
        raise ValueError(f"state_dict() of the network has {', '.join(strange)}, which is no parameter and no buffer")
    if network_state(copied(model)).keys() != network_state(model).keys():
        raise ValueError("a copy of the network has another state_dict() than the network")


def _check_each_alone(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> None:
    """Refuse a likelihood that gives an example another value beside others: it would be no product over examples."""
    half = len(outputs) // 2
    together, alone = likelihood(outputs, targets)[:half], likelihood(outputs[:half], targets[:half])
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"the likelihood of an example is another one beside {half} examples than beside {len(outputs)}; compute "
            f"it from the example's own output and target (outputs have shape {tuple(outputs.shape)} and targets "
            f"{tuple(targets.shape)}: does one broadcast the other?)"
        )


def _check_gradients(model: nn.Module, losses: Tensor, count: int, complete: bool) -> None:
    """Refuse gradients that are not finite and, where the whole network runs, parameters out of the loss's reach."""
    if losses.shape != (count,):
        raise ValueError(
            f"the likelihood of {count} examples has shape {tuple(losses.shape)}; it must be ({count},), one negative "
            "log-likelihood for each (reduction='none')"
        )
    if not losses.requires_grad:
        raise ValueError("the likelihood has no gradient with respect to the outputs; compute it with torch")
    if not bool(losses.isfinite().all()):
        raise ValueError("the likelihood of training examples is not finite at the random start")
    parameters = trainable(model)
    gradients = torch.autograd.grad(losses.mean(), list(parameters.values()), allow_unused=True)
    pairs = list(zip(parameters, gradients, strict=True))
    if complete and (unused := [name for name, gradient in pairs if gradient is None]):
        raise ValueError(
            f"the loss does not depend on {', '.join(unused)}, so no sampler can move them; take them out of the "
            "network, or freeze them with requires_grad_(False)"
        )
    if bad := [name for name, gradient in pairs if gradient is not None and not bool(gradient.isfinite().all())]:
        raise ValueError(f"the gradient of {', '.join(bad)} is not finite at the random start")


@torch.no_grad()
def _randomness(model: nn.Module, inputs: Tensor) -> list[str]:
    """The same batch again, with the same random numbers, and with others."""
    with torch.random.fork_rng(devices=_devices(model)):
        first = model(inputs)
    again, other = model(inputs), model(inputs)
    found = []
    if relative(first, again) >= ROUNDING:
        found.append(
            "state: the outputs of one batch change when it is passed again with the same random numbers of torch; the "
            "likelihood depends on what was passed before, or on random numbers of another kind"
        )
    elif relative(again, other) >= ROUNDING:
        what = "dropout" if any(isinstance(m, _DropoutNd) for m in model.modules()) else "randomness in the network"
        found.append(f"{what}: the likelihood of an example is that of a network drawn anew at every step")
    return found


@torch.no_grad()
def _interaction(model: nn.Module, inputs: Tensor, random: bool) -> list[str]:
    """Half a batch alone, and within the batch; of a random network in evaluation mode, but for batch normalisation."""
    half = len(inputs) // 2
    if half < 2:
        return []
    norms = batchnorm.layers(model)
    with evaluation_mode(model) if random else nullcontext():
        for norm in norms:
            norm.train()
        whole, again, alone = model(inputs), model(inputs), model(inputs[:half])
    if relative(whole[:half], alone) < ROUNDING or relative(whole, again) >= ROUNDING:
        return []
    what = "batch normalisation" if any(isinstance(m, _BatchNorm) for m in model.modules()) else "examples interact"
    return [f"{what}: the likelihood of an example depends on the rest of its minibatch"]


def relative(expected: Tensor, found: Tensor) -> float:
    """Norm of the difference, relative to what was expected."""
    scale = float(expected.double().norm())
    return float((found.double() - expected.double()).norm()) / scale if scale > 0 else float(found.any())


@contextmanager
def in_mode(model: nn.Module, kind: type[nn.Module], training: bool) -> Iterator[None]:
    """Put the modules of a kind into training or evaluation mode for a while."""
    with modes_kept(model):
        for module in model.modules():
            if isinstance(module, kind):
                module.training = training
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into training mode for a while, as its own `train` does that."""
    with modes_kept(model):
        model.train()
        yield


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore buffers (the running statistics of BatchNorm) and random generators."""
    buffers = [(b, b.clone()) for b in model.buffers()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=_devices(model)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for buffer, saved in buffers:
            buffer.copy_(saved)


def _devices(model: nn.Module) -> list[torch.device]:
    return list({p.device for p in model.parameters() if p.device.type == "cuda"})
