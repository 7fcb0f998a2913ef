"""What most people do: the same network by SGD or AdamW, then gradual magnitude pruning, at the same number of steps.

The dense network trains for as many steps as a dense chain, on one cosine. Pruning passes the same targets with the
same mask schedule as the in-chain forks, one cosine per target. The result is one network, so `members` is 1.

References
----------
Zhu, Gupta: To prune, or not to prune (arXiv 1710.01878).
"""

import math
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from sgmcmc_prune import build
from sgmcmc_prune.config import RunConfig
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import categorical, mean_nll
from sgmcmc_prune.metrics import summarise
from sgmcmc_prune.predict import class_probabilities
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.schedules import Cyclical

OptimizerName = Literal["sgd", "adamw"]

#: Learning rate at the top of the cosine, relative to the chain's.
_SETTINGS: dict[str, dict[str, float]] = {
    "sgd": {"relative_lr": 1.0, "weight_decay": 5e-4},
    "adamw": {"relative_lr": 0.02, "weight_decay": 0.01},
}


def train_and_prune(
    config: RunConfig, data: build.Data, optimizer: OptimizerName, progress: bool = True
) -> dict[str, Any]:
    """Train a dense network and prune it gradually by magnitude.

    Parameters
    ----------
    config : RunConfig
        Gives data, network, schedule lengths, targets, allocation and seed; prior and temperature are not used.
    data : Data
    optimizer : {"sgd", "adamw"}
    progress : bool

    Returns
    -------
    dict
        `dense` and `pruned` rows as in `metrics.json`, `split` and `seed`.

    Raises
    ------
    RunError
        If the loss is not finite.
    """
    model = build.build_model(config, data, 0)
    stream = build.build_stream(config, data, 0)
    settings = _SETTINGS[optimizer]
    opt = _optimizer(optimizer, model, config, settings)
    dense = build.dense_schedule(config, stream.steps_per_epoch).num_steps
    fork = build.fork_schedule(config, stream.steps_per_epoch)
    pruner = build.build_pruner(config, model, "magnitude", 0, None)
    per_target = fork.explore + fork.sample
    inputs, labels = data.test if config.evaluate == "test" else data.validation
    pruned = []
    result: dict[str, Any] = {}
    with tqdm(total=dense + fork.num_steps, desc=optimizer, unit="step", disable=not progress) as bar:
        for step in range(dense + fork.num_steps):
            if step == dense:
                result = _row(model, inputs, labels, {})
            position = step / dense if step < dense else ((step - dense) % per_target) / per_target
            top = config.sampler.lr if step < dense else config.sampler.lr_explore
            _set_lr(opt, settings["relative_lr"] * top * (1 + math.cos(math.pi * position)) / 2)
            if step >= dense:
                _prune(pruner, fork, step - dense, model)
            _train_step(model, stream, opt, step)
            if pruner.mask is not None:
                masks.apply(pruner.mask, dict(model.named_parameters()))
                if (step - dense + 1) % per_target == 0:
                    target = config.prune.targets[(step - dense) // per_target]
                    pruned.append({"target": target, **_row(model, inputs, labels, pruner.mask)})
            bar.update(1)
    labels_of = {"criterion": "magnitude", "when": "in_chain", "decision": "target"}
    return {
        "split": config.evaluate,
        "seed": config.seed,
        "dense": result,
        "pruned": [{**labels_of, **row} for row in pruned],
    }


def _optimizer(name: str, model: nn.Module, config: RunConfig, settings: dict[str, float]) -> torch.optim.Optimizer:
    lr, decay = settings["relative_lr"] * config.sampler.lr, settings["weight_decay"]
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=config.sampler.momentum, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _prune(pruner: Any, fork: Cyclical, step: int, model: nn.Module) -> None:
    plan = fork(step)
    if plan.phase == "explore":
        mask = pruner.update(step, plan, dict(model.named_parameters()), None)
        if mask is not None:
            masks.apply(mask, dict(model.named_parameters()))


def _train_step(model: nn.Module, stream: MinibatchStream, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.train()
    inputs, targets = stream.batch(step)
    loss = mean_nll(categorical, model(inputs), targets)
    if not math.isfinite(loss.item()):
        raise RunError(f"training diverged at step {step}: the loss is {loss.item()}. Lower sampler.lr")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _row(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, mask: masks.Mask) -> dict[str, Any]:
    scores = summarise(class_probabilities(model, inputs), labels)
    return {
        "sparsity": masks.sparsity(mask) if mask else 0.0,
        "sparsity_all_parameters": masks.total_sparsity(mask, model) if mask else 0.0,
        **scores,
        "members": 1,
        "single_accuracy": scores["accuracy"],
        "single_nll": scores["nll"],
    }
