"""An audit of any model and loss: does the sampler get the gradient that its posterior needs?

A sampler takes `.grad` for the gradient of the mean negative log-likelihood of a minibatch out of N = `num_data`
examples, and adds the prior itself. Code that trains a network well may break each part of this: a summed loss, a
loader that drops examples, augmentation, dropout, BatchNorm in train mode, a missing prior. A finding is one line with
its numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.rehearsal import ROUNDING, in_mode, rehearse, relative, unchanged
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.likelihoods import mean_nll
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.samplers import Sampler
from sgmcmc_prune.settings import replace

#: outputs, targets -> the loss of a batch, a scalar
Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


def audit(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], num_data: int, sampler: Sampler | None = None
) -> list[str]:
    """Findings in words, one line each; an empty list when nothing was found.

    Parameters
    ----------
    model : nn.Module
        In the mode in which it is sampled (`model.train()`, usually). Its weights, buffers, modes and gradients, and
        the random generators of Python, NumPy and PyTorch, are left as they were.
    loss : callable
        (outputs, targets) -> scalar, as in the training loop.
    batches : iterable of (inputs, targets)
        One epoch; it is passed through twice (a `DataLoader` or a list, not a generator).
    num_data : int
        N, as the sampler gets it.
    sampler : Sampler, optional
        Built on `model`; then its parameters, its `num_data` and its prior are checked too.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a pass holds no batch, or the loss is not a finite scalar.

    Examples
    --------
    >>> audit(model, nn.CrossEntropyLoss(), loader, num_data=60_000, sampler=sampler)  # doctest: +SKIP
    ['one epoch holds 59904 examples, but num_data is 60000: ...']
    """
    with unchanged(model):
        first = _Epoch()
        for inputs, targets in batches:
            first.add(inputs, targets)
            first.add_gradients(model, loss, inputs, targets)
        second = _Epoch()
        for inputs, targets in batches:
            second.add(inputs, targets)
        if first.batch is None or second.batch is None:
            raise ValueError("a pass over `batches` held no batch; give a loader or a list that can be passed twice")
        findings = _count(first, num_data) + _reduction(model, loss, *first.batch)
        findings += _augmentation(first, second, num_data) + _randomness(model, first.batch[0])
        findings += _interaction(model, first.batch[0]) + _epoch_gradient(first)
        return findings + ([] if sampler is None else _sampler(model, sampler, num_data) + _prior(sampler))


def audit_run(config: RunConfig) -> tuple[list[str], list[str]]:
    """Rehearse and audit the first chain of a configuration at its random start, on its training data: both in lines.

    Batches have the largest size that divides the number of examples and is not above the configured one, so that a
    pass is an epoch exactly.

    Raises
    ------
    ValueError
        For a configuration that cannot be built.
    """
    from sgmcmc_prune.chains.batched import obstacle
    from sgmcmc_prune.run.checks import check_choices, check_device
    from sgmcmc_prune.run.run import Run
    from sgmcmc_prune.run.unread import unread_settings

    check_device(config.device)
    check_choices(config)
    run = Run(config)
    data, num_data = run.data, run.num_data
    size = max(b for b in range(1, config.data.batch_size + 1) if num_data % b == 0)
    found = rehearse(run.model(0), data.train[0], data.train[1], run.likelihood, run.num_outputs)
    chain = Run(replace(config, **{"data.batch_size": size}), data=data).chain(0, run.schedule(None))
    chain.model.train()
    loss = partial(mean_nll, chain.likelihood)
    lines = [
        *found.lines(),
        *(f"departs from the posterior: {line}" for line in found.departures),
        *(f"note: {line}" for line in unread_settings(run)),
        f"batched chains: {obstacle(chain) or 'possible'}",
        _memory(config, chain),
        *_cutting(chain.model, data.train[0][:2]),
    ]
    return lines, audit(chain.model, loss, _Epochs(chain.stream, num_data // size), num_data, chain.sampler)


def _memory(config: RunConfig, chain: Chain) -> str:
    """What a run would be refused for, if it were not free."""
    from sgmcmc_prune.chains.memory import chain_bytes, evaluation_bytes
    from sgmcmc_prune.run.decide import asked_post_hoc

    line = f"memory: {chain_bytes(chain) / 1e9:.3g} GB a chain, without activations"
    if rows := len(asked_post_hoc(config)):
        masks = evaluation_bytes(chain, config.chains, rows) / 1e9
        line += f"; {masks:.3g} GB for the masks of {rows} rows and {config.chains} chains, in each rank of a machine"
    return line


def _cutting(model: nn.Module, example: Tensor) -> list[str]:
    """Whether nodes can be cut out of a network, and the layers that keep all of theirs, by reason."""
    from sgmcmc_prune.pruning.shrink import shrink

    try:
        obstacles = shrink(model, {}, example).obstacles
    except ValueError as error:
        return [f"cutting nodes out: {error}"]
    why: dict[str, list[str]] = {}
    for name, reason in obstacles.items():
        why.setdefault(reason, []).append(name)
    return [
        "cutting nodes out: possible",
        *(f"no node is cut out of {', '.join(names)}: {reason}" for reason, names in why.items()),
    ]


@dataclass
class _Epochs:
    """One epoch of a stream at every pass."""

    stream: MinibatchStream
    batches: int
    passes: int = 0

    def __iter__(self) -> Iterator[Batch]:
        first, self.passes = self.passes * self.batches, self.passes + 1
        return (self.stream.batch(first + i) for i in range(self.batches))


@dataclass
class _Epoch:
    """What is kept of one pass over the data: never the data themselves, except the first batch."""

    batch: Batch | None = None
    sizes: list[int] = field(default_factory=list)
    fingerprints: list[Tensor] = field(default_factory=list)
    #: Sums over batches: of gradients as the sampler sees them, the same by examples, and in eval mode by examples.
    seen: Tensor | float = 0.0
    by_example: Tensor | float = 0.0
    evaluated: Tensor | float = 0.0

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Count a batch, and keep one number for each of its inputs."""
        self.batch = self.batch or (inputs, targets)
        self.sizes.append(len(inputs))
        flat = inputs.detach().flatten(1).double() if inputs.dim() > 1 else inputs.detach().double()[:, None]
        self.fingerprints.append((flat * torch.arange(1.0, flat.shape[1] + 1, device=flat.device).cos()).sum(1).cpu())

    def add_gradients(self, model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        """Add the gradient of a batch, in the model's own mode and in eval mode."""
        gradient = _gradient(model, loss, inputs, targets)
        self.seen, self.by_example = self.seen + gradient, self.by_example + gradient * len(inputs)
        with in_mode(model, nn.Module, False):
            self.evaluated = self.evaluated + _gradient(model, loss, inputs, targets) * len(inputs)

    @property
    def count(self) -> int:
        """Number of examples."""
        return sum(self.sizes)


def _gradient(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of a batch's loss over all parameters, one float64 vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        value = _checked(loss(model(inputs), targets))
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for p, g in pairs])


def _checked(value: Tensor) -> Tensor:
    if not (isinstance(value, Tensor) and value.numel() == 1 and math.isfinite(value.item())):
        shown = tuple(value.shape) if isinstance(value, Tensor) and value.numel() != 1 else value
        raise ValueError(f"the loss of a batch is {shown}; it must be one finite number (reduction='mean')")
    return value


def _count(epoch: _Epoch, num_data: int) -> list[str]:
    if epoch.count == num_data:
        return []
    ratio = num_data / epoch.count
    return [
        f"one epoch holds {epoch.count} examples, but num_data is {num_data}: the likelihood would count {ratio:.3g} "
        "times what it should (a validation split, drop_last, or several epochs in one?)"
    ]


@torch.no_grad()
def _reduction(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> list[str]:
    """A mean does not change when every example is given twice; a sum doubles."""
    with in_mode(model, nn.Module, False):
        outputs = model(inputs)
    once = _checked(loss(outputs, targets)).item()
    twice = _checked(loss(torch.cat([outputs, outputs]), torch.cat([targets, targets]))).item()
    ratio = twice / once if once != 0 else 1.0
    if abs(ratio - 1) < ROUNDING:
        return []
    measured = f"the loss of a batch given twice is {ratio:.3f} times its loss ({twice:.5g} after {once:.5g})"
    if abs(ratio - 2) < ROUNDING:
        size = len(inputs)
        return [
            f"{measured}: it sums over examples, and num_data times it counts each of them {size} times; use the mean"
        ]
    return [f"{measured}: it is no mean over examples, whose ratio is 1"]


def _augmentation(first: _Epoch, second: _Epoch, num_data: int) -> list[str]:
    """Inputs of the second pass that the first did not hold, beyond those that a dropped last batch explains."""
    known, values = torch.cat(first.fingerprints).sort().values, torch.cat(second.fingerprints)
    after = torch.searchsorted(known, values).clamp(1, max(len(known) - 1, 1))
    nearest = torch.minimum((known[after - 1] - values).abs(), (known[after.clamp(max=len(known) - 1)] - values).abs())
    new = int((nearest > 1e-9 * (1 + values.abs())).sum())
    if new <= max(0, num_data - first.count):
        return []
    return [
        f"{new} of {second.count} inputs of the second epoch did not occur in the first: the data are augmented, and "
        "the target is no posterior of num_data examples"
    ]


@torch.no_grad()
def _randomness(model: nn.Module, inputs: Tensor) -> list[str]:
    """The same batch twice."""
    change = relative(model(inputs), model(inputs))
    if change < ROUNDING:
        return []
    return [
        f"the outputs of one batch differ by {change:.2%} when it is passed again: the network is random"
        f"{_named(model, _DropoutNd)}; its gradient is that of another loss, with more noise"
    ]


@torch.no_grad()
def _interaction(model: nn.Module, inputs: Tensor) -> list[str]:
    """Half a batch alone, and within the batch; dropout is switched off for this."""
    half = len(inputs) // 2
    with in_mode(model, _DropoutNd, False):
        whole, again = model(inputs), model(inputs)
        alone = model(inputs[:half]) if half > 1 else whole[:half]
    change = relative(whole[:half], alone)
    if half < 2 or change < ROUNDING or relative(whole, again) >= ROUNDING:
        return []
    return [
        f"the outputs of {half} examples differ by {change:.2%} without the rest of their batch: examples depend on "
        f"one another{_named(model, _BatchNorm)}, and the loss is no sum over examples"
    ]


def _epoch_gradient(epoch: _Epoch) -> list[str]:
    """The average of the minibatch gradients, and the gradient of all the data."""
    seen, by_example = torch.as_tensor(epoch.seen) / len(epoch.sizes), torch.as_tensor(epoch.by_example) / epoch.count
    findings = []
    if (change := relative(by_example, seen)) >= ROUNDING:
        findings.append(
            f"the average of the minibatch gradients differs by {change:.2%} from the gradient of all the data: "
            f"batches have {min(epoch.sizes)} to {max(epoch.sizes)} examples, and those of the smaller ones weigh more"
        )
    if (change := relative(torch.as_tensor(epoch.evaluated) / epoch.count, by_example)) >= ROUNDING:
        findings.append(
            f"the gradient of all the data in the model's present mode differs by {change:.2%} from that in eval mode"
        )
    return findings


def _sampler(model: nn.Module, sampler: Sampler, num_data: int) -> list[str]:
    """Parameters that the sampler does not hold, and another N."""
    held = {id(p) for _, p, _, _ in sampler.named_states()}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    findings = [f"the sampler does not hold {', '.join(missing)}: these weights would never move"] if missing else []
    others = sorted({group["num_data"] for group in sampler.param_groups} - {num_data})
    return findings + [f"the sampler's num_data is {other}, not {num_data}" for other in others]


def _prior(sampler: Sampler) -> list[str]:
    """What the sampler adds to the gradient is -d log p(w) / dw / N; at w + 1, for a prior has no force at zero."""
    states = sampler.named_states()
    shifted = {name: (p.detach() + 1).requires_grad_() for name, p, _, _ in states}
    for w in shifted.values():
        w.grad = torch.zeros_like(w)
    forces = {name: sampler.force(name, shifted[name], group["num_data"]).detach() for name, _, _, group in states}
    without = [name for name, force in forces.items() if not force.any()]
    if without:
        return [f"the force on {', '.join(without)} is the gradient alone: there is no prior on them"]
    assert sampler.prior is not None
    density = sampler.prior.log_density(shifted)
    gradients = torch.autograd.grad(density, list(shifted.values()), allow_unused=True)
    findings = []
    for (name, _, _, group), g in zip(states, gradients, strict=True):
        if g is not None and (change := relative(-g / group["num_data"], forces[name])) >= ROUNDING:
            findings.append(
                f"the prior's force on {name} differs by {change:.2%} from the slope of its log density / N"
            )
    return findings


def _named(model: nn.Module, kind: type[nn.Module]) -> str:
    """The active modules of a kind, for a sentence."""
    names = [n for n, m in model.named_modules() if isinstance(m, kind) and m.training and getattr(m, "p", 1) > 0]
    return f" ({', '.join(names)} in train mode)" if names else ""
