"""What most people do: the same network by SGD or AdamW, then gradual magnitude pruning, at the same number of steps.

The dense network trains for as many steps as a dense chain, on one cosine. Pruning passes the same targets with the
same mask schedule as the in-chain forks, one cosine per cycle. One network has the start and the minibatches of one
chain. As the control of a run there are as many networks as chains (`run.stages.take_control`).

References
----------
Zhu, Gupta: To prune, or not to prune (arXiv 1710.01878).
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.training import Recipe, Trainer
from sgmcmc_prune.chains.forward import Precision, minibatch_nll, seeded
from sgmcmc_prune.machine.progress import counted
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.run import Run

OptimizerName = Literal["sgd", "adamw"]

#: Size of the weights over the last steps.
_CRITERION = "root_mean_square"
#: Learning rate at the top of the cosine, relative to the chain's, and weight decay.
_SETTINGS: dict[str, tuple[float, float]] = {"sgd": (1.0, 5e-4), "adamw": (0.02, 0.01)}


class _Passes(Trainer):
    """The loop, with the passes of a chain: its precision, and its key for what the network itself draws."""

    precision: Precision = "float32"

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """What a step lowers, 0-d: the mean negative log-likelihood of a minibatch."""
        key = seeded(inputs.device, self.stream, self.step)
        return minibatch_nll(self.model, self.likelihood, (inputs, targets), self.precision, key)


class DenseThenGradual:
    """One network on its way: dense, then under a mask that grows from target to target.

    Parameters
    ----------
    run : Run
        Gives data, network, schedule lengths, targets, allocation and seed; prior and temperature are not used.
    index : int
        Of the chain whose start and minibatches it has.
    optimizer : {"sgd", "adamw"}

    Attributes
    ----------
    spent : list of (int, float)
        Gradient evaluations and seconds at the end of each stage so far: dense, then every target.
    """

    def __init__(self, run: Run, index: int, optimizer: OptimizerName) -> None:
        config, model = run.config, run.model(index)
        self.relative_lr, weight_decay = _SETTINGS[optimizer]
        self.lr, self.lr_explore = (self.relative_lr * lr for lr in (config.sampler.lr, config.sampler.lr_explore))
        built = Recipe(optimizer, self.lr, config.sampler.momentum, weight_decay).build(model)
        self.trainer = _Passes(model, run.stream(index), run.likelihood, built, steps=0)  # every cosine is begun here
        self.trainer.precision = config.precision
        self.dense_steps = run.schedule(None).num_steps
        self.fork = run.schedule(run.stages[-1])  # of a run that does not prune in the chain the dense one, not used
        self.pruner = run.pruner(model, _CRITERION, index, None) if run.num_control_steps > self.dense_steps else None
        self.num_steps, self.cycles = run.num_control_steps, config.prune.cycles
        self.spent: list[tuple[int, float]] = []
        self._before, self._started = 0.0, time.perf_counter()

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.trainer.model

    @property
    def mask(self) -> masks.Mask:
        """What is kept; empty while the network is dense."""
        return self.trainer.mask or {}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.trainer.step

    def advance(self) -> bool:
        """Take one step; say whether a stage ended with it.

        Raises
        ------
        RunError
            If the loss is not finite.
        """
        ended = self._dense() if self.step < self.dense_steps else self._pruning()
        if ended:
            self.spent.append((self.trainer.gradient_evaluations, self._seconds()))
        return ended

    def _dense(self) -> bool:
        if self.step == 0:
            self.trainer.anneal(self.lr, self.dense_steps)
        self.trainer.run(1)
        return self.step == self.dense_steps

    def _pruning(self) -> bool:
        assert self.pruner is not None
        step, cycle = self.step - self.dense_steps, self.fork.explore + self.fork.sample
        plan = self.fork(step)
        if step % cycle == 0:
            self.trainer.anneal(self.lr_explore, cycle)
        mask = self.pruner.update(step, plan, self.trainer.parameters, None)
        if mask is not None:
            self.trainer.set_mask(mask)
        self.trainer.run(1)
        return plan.end_of_cycle and plan.cycle % self.cycles == 0

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        t = self.trainer
        return {
            "network": network_state(t.model),
            "optimizer": t.optimizer.state_dict(),
            "mask": t.mask,
            "pruner": None if self.pruner is None else self.pruner.state_dict(),
            "step": t.step,
            "gradient_evaluations": t.gradient_evaluations,
            "cosine": t.cosine,
            "spent": self.spent,
            "seconds": self._seconds(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        t = self.trainer
        t.model.load_state_dict(state["network"], strict=False)  # a shared weight is there once
        t.optimizer.load_state_dict(state["optimizer"])
        t.mask = state["mask"]
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        t.step, t.gradient_evaluations, t.cosine = state["step"], state["gradient_evaluations"], state["cosine"]
        self.spent = [(int(count), float(seconds)) for count, seconds in state["spent"]]
        self._before, self._started = state["seconds"], time.perf_counter()


def sgd(run: Run, index: int) -> DenseThenGradual:
    """Dense training by SGD beside a chain, then gradual magnitude pruning where the run prunes in the chain."""
    return DenseThenGradual(run, index, "sgd")


def adamw(run: Run, index: int) -> DenseThenGradual:
    """Dense training by AdamW beside a chain, then gradual magnitude pruning where the run prunes in the chain."""
    return DenseThenGradual(run, index, "adamw")


def train_and_prune(run: Run, optimizer: OptimizerName, progress: bool = True) -> dict[str, Any]:
    """Train one dense network and prune it gradually by magnitude.

    Parameters
    ----------
    run : Run
    optimizer : {"sgd", "adamw"}
    progress : bool

    Returns
    -------
    dict
        `dense` and `pruned` rows as in `metrics.json`, `split`, `seed` and `data`.

    Raises
    ------
    RunError
        If the loss is not finite.
    """
    network, targets = DenseThenGradual(run, 0, optimizer), iter(run.config.prune.targets)
    rows: list[dict[str, Any]] = []
    for _ in counted(range(network.num_steps), optimizer, "step", progress):
        if not network.advance():
            continue
        row = _row(network.model, run.evaluation_split, network.mask)
        row |= {"gradient_evaluations": network.spent[-1][0], "seconds": network.spent[-1][1]}
        if rows:
            labels = {"criterion": _CRITERION, "when": "in_chain", "decision": "target", "target": next(targets)}
            row = labels | row
        rows.append(row)
    described = {"split": run.config.evaluate, "seed": run.config.seed, "data": run.data.dataset.origin}
    return {**described, "dense": rows[0], "pruned": rows[1:]}


def _row(model: nn.Module, split: tuple[torch.Tensor, torch.Tensor], mask: masks.Mask) -> dict[str, Any]:
    inputs, labels = split
    scores = summarise(class_probabilities(model, inputs), labels)
    return {
        "sparsity": masks.sparsity(mask),
        "sparsity_all_parameters": masks.total_sparsity(mask, model),
        **scores,
        "members": 1,
        "single_accuracy": scores["accuracy"],
        "single_nll": scores["nll"],
    }
