"""What most people do: the same network by SGD or AdamW, then gradual magnitude pruning, at the same number of steps.

The dense network trains for as many steps as a dense chain, on one cosine. Pruning passes the same targets with the
same mask schedule as the in-chain forks, one cosine per cycle. The result is one network, so `members` is 1.

References
----------
Zhu, Gupta: To prune, or not to prune (arXiv 1710.01878).
"""

from typing import Any, Literal

import torch
from torch import nn

from sgmcmc_prune.baselines.training import Recipe, Trainer, counted
from sgmcmc_prune.likelihoods import categorical
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.schedules import fork_schedule

OptimizerName = Literal["sgd", "adamw"]

#: Learning rate at the top of the cosine, relative to the chain's, and weight decay.
#: Size of the weights over the last steps.
_CRITERION = "root_mean_square"
_SETTINGS: dict[str, tuple[float, float]] = {"sgd": (1.0, 5e-4), "adamw": (0.02, 0.01)}


def train_and_prune(run: Run, optimizer: OptimizerName, progress: bool = True) -> dict[str, Any]:
    """Train a dense network and prune it gradually by magnitude.

    Parameters
    ----------
    run : Run
        Gives data, network, schedule lengths, targets, allocation and seed; prior and temperature are not used.
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
    config, model, stream = run.config, run.model(0), run.stream(0)
    relative_lr, weight_decay = _SETTINGS[optimizer]
    lr, momentum = relative_lr * config.sampler.lr, config.sampler.momentum
    built = Recipe(optimizer, lr, momentum, weight_decay).build(model)
    trainer = Trainer(model, stream, categorical, built, steps=0)  # every cosine is begun here
    trainer.anneal(lr, run.schedule(None).num_steps)
    trainer.run(trainer.num_steps, name=optimizer, progress=progress)
    dense = _row(model, run.evaluation_split, {})
    pruned = _prune(trainer, run, relative_lr * config.sampler.lr_explore, f"{optimizer}, pruning", progress)
    return {"split": config.evaluate, "seed": config.seed, "dense": dense, "pruned": pruned}


def _prune(trainer: Trainer, run: Run, lr: float, name: str, progress: bool) -> list[dict[str, Any]]:
    """Train on while the mask grows, with the cycles of an in-chain fork; one row at the end of each target."""
    config, fork = run.config, fork_schedule(run.config, run.steps_per_epoch)
    pruner = run.pruner(trainer.model, _CRITERION, 0, None)
    rows = []
    for step in counted(range(fork.num_steps), name, "step", progress):
        plan = fork(step)
        if step % (fork.explore + fork.sample) == 0:
            trainer.anneal(lr, fork.explore + fork.sample)
        mask = pruner.update(step, plan, trainer.parameters, None)
        if mask is not None:
            trainer.set_mask(mask)
        trainer.run(1)
        if plan.end_of_cycle and plan.cycle % config.prune.cycles == 0:
            target = config.prune.targets[pruner.target_index(plan.cycle)]
            row = _row(trainer.model, run.evaluation_split, trainer.mask or {})
            rows.append({"criterion": _CRITERION, "when": "in_chain", "decision": "target", "target": target, **row})
    return rows


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
