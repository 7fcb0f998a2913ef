r"""Where a chain may start, and a step that it can follow: a share of the stability limit where the posterior is steep.

With the mean loss L (negative log-likelihood, and -log prior / N) and mass one, a sampler without its noise is SGD with
momentum beta, which is stable for :math:`l \lambda_{max} < 2 (1 + \beta)`, where :math:`\lambda_{max}` is the largest
eigenvalue of the Hessian of L. It is largest near a mode, where a learned noise is small. So a network is trained for
a while, and the power iteration takes differences of gradients: whatever has one derivative will do. With so small a
step a chain would hardly get to a mode from a random start. So chains start where such a training ends, each from a
random start of its own. The training ends before the network knows its examples by heart: there a learned noise is far
below that of the posterior, and a step that is stable there is too small to come back.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.seeding import seeded_generator, torch_seeded
from sgmcmc_prune.likelihoods import Likelihood, mean_nll
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.pruning.prunable import trainable

#: Steps of AdamW towards a mode, its rate, and iterations of the power method.
FIT_STEPS, FIT_LR, ITERATIONS = 1500, 1e-2, 20
#: Its weight decay: what keeps idle weights from staying where they began.
WEIGHT_DECAY = 1e-2
#: Between so many examples, a tenth is held out of that training, and looked at every so many steps; it ends when the
#: best weights are so many steps back.
FEWEST, MANY, EVERY, PATIENCE = 50, 20_000, 20, 300
#: Length of a difference, relative to that of the weights.
RELATIVE = 1e-3
#: Examples that the curvature is measured on.
EXAMPLES = 2000


def train(
    model: nn.Module, likelihood: Likelihood, stream: MinibatchStream, after: Callable[[], object] = lambda: None
) -> None:
    """Train a network, in place, towards a mode by AdamW; what it draws itself depends on the stream's key alone.

    Of few examples it keeps the weights that do best on a tenth that is held out of this training (not of the chain).

    Parameters
    ----------
    model : nn.Module
    likelihood : Likelihood
    stream : MinibatchStream
    after : callable
        Told of every step, for a bar.
    """
    optimiser = torch.optim.AdamW(trainable(model).values(), lr=FIT_LR, weight_decay=WEIGHT_DECAY)
    stream, held_out = _split(stream)
    best = None if held_out is None else Best(model, likelihood, *held_out)
    with torch_seeded(stream.inputs.device, "warm up", stream.seed, stream.chain):
        for step in range(FIT_STEPS):
            inputs, targets = stream.batch(step)
            optimiser.zero_grad()
            mean_nll(likelihood, model(inputs), targets).backward()
            optimiser.step()
            after()
            if best is not None and step % EVERY == EVERY - 1 and best.since(step) >= PATIENCE:
                break
    optimiser.zero_grad()
    if best is not None:
        best.put_back()


def _split(stream: MinibatchStream) -> tuple[MinibatchStream, tuple[Tensor, Tensor] | None]:
    """Minibatches of nine tenths of the examples, and the others; of many examples, or pictures on disk, of all."""
    count = stream.num_data
    if not FEWEST <= count <= MANY or not isinstance(stream.inputs, Tensor):
        return stream, None
    order = torch.randperm(count, generator=seeded_generator("held out of a start", stream.seed, stream.chain))
    held, kept = order[: count // 10].to(stream.targets.device), order[count // 10 :].to(stream.targets.device)
    size = min(stream.batch_size, len(kept))
    rest = MinibatchStream(stream.inputs[kept], stream.targets[kept], size, stream.seed, stream.chain, stream.transform)
    return rest, (stream.inputs[held], stream.targets[held])


class Best:
    """The weights of a training that did best on held-out examples.

    Parameters
    ----------
    model : nn.Module
    likelihood : Likelihood
    inputs, targets : Tensor, shape (n, ...)
    """

    def __init__(self, model: nn.Module, likelihood: Likelihood, inputs: Tensor, targets: Tensor) -> None:
        self.model, self.likelihood, self.inputs, self.targets = model, likelihood, inputs, targets
        self.loss, self.step, self.state = math.inf, 0, dict[str, Tensor]()

    def since(self, step: int) -> int:
        """Look at the weights after a step; how many steps the best ones are back."""
        with evaluation_mode(self.model), torch.no_grad():
            loss = float(mean_nll(self.likelihood, self.model(self.inputs), self.targets))
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.state = {name: value.clone() for name, value in network_state(self.model).items()}
        return step - self.step

    def put_back(self) -> None:
        """Give the model its best weights; the last ones if none were looked at, or none had a finite loss."""
        if self.state:
            load_network_state(self.model, self.state)


def stable_step(
    model: nn.Module,
    likelihood: Likelihood,
    stream: MinibatchStream,
    prior_curvature: float,
    momentum: float,
    share: float,
) -> float:
    """A step on the scale of SGD's learning rate.

    Parameters
    ----------
    model : nn.Module
        Near a mode; it is not changed.
    likelihood : Likelihood
    stream : MinibatchStream
    prior_curvature : float
        Largest second derivative of -log prior / N.
    momentum : float
        beta, of the sampler.
    share : float
        Of the stability limit.

    Returns
    -------
    float
    """
    network = copy.deepcopy(model).train()  # as it is sampled: with the statistics of its batch
    parameters = trainable(network)
    inputs, targets = stream.inputs[:EXAMPLES], stream.targets[:EXAMPLES]
    largest = _largest_eigenvalue(network, list(parameters.values()), likelihood, inputs, targets)
    return share * 2 * (1 + momentum) / (largest + prior_curvature)


def _largest_eigenvalue(
    network: nn.Module, parameters: list[nn.Parameter], likelihood: Likelihood, inputs: Tensor, targets: Tensor
) -> float:
    """By the power method, of the Hessian of the mean negative log-likelihood."""
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    length = RELATIVE * float(torch.stack([p.detach().norm() for p in parameters]).norm())
    size = 0.0
    for _ in range(ITERATIONS):
        norm = float(torch.stack([d.norm() for d in direction]).norm())
        if norm == 0:
            return size
        direction = [d / norm for d in direction]
        ahead, behind = (
            _gradient(network, parameters, likelihood, inputs, targets, direction, sign * length) for sign in (1, -1)
        )
        direction = [(a - b) / (2 * length) for a, b in zip(ahead, behind, strict=True)]
        size = float(torch.stack([d.norm() for d in direction]).norm())
    return size


def _gradient(
    network: nn.Module,
    parameters: list[nn.Parameter],
    likelihood: Likelihood,
    inputs: Tensor,
    targets: Tensor,
    direction: list[Tensor],
    length: float,
) -> tuple[Tensor, ...]:
    """Gradient of the mean loss at the weights plus `length` times a direction."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=length)
    with torch_seeded(inputs.device, "curvature"):  # the same dropout for all of them
        found = torch.autograd.grad(mean_nll(likelihood, network(inputs), targets), parameters)
    with torch.no_grad():
        for p, b in zip(parameters, before, strict=True):
            p.copy_(b)
    return found
