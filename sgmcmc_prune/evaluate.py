"""From the stored draws to the table: dense, pruned post hoc, pruned in the chain, each as a posterior predictive.

Every chain predicts under its own mask, and chains are pooled in function space only. This is the one place where the
test split is read.
"""

import copy
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from sgmcmc_prune import build, checkpoint
from sgmcmc_prune.chains.loop import members
from sgmcmc_prune.config import RunConfig
from sgmcmc_prune.convergence import in_function_space
from sgmcmc_prune.diagnostics import judge
from sgmcmc_prune.inclusion import InclusionAverage, Moments
from sgmcmc_prune.metrics import reliability, summarise
from sgmcmc_prune.predict import Predictive, pool, posterior_predictive
from sgmcmc_prune.pruning import batchnorm, criteria, decision, masks
from sgmcmc_prune.weights import WeightStore

Mask = dict[str, Tensor]
Scores = dict[str, Tensor]
#: Training examples that re-estimate BatchNorm statistics after a mask.
BATCHNORM_BATCH, BATCHNORM_BATCHES = 250, 8


class _Evaluator:
    """Predicts on one split with the draws of a stage."""

    def __init__(self, config: RunConfig, data: build.Data, out: Path) -> None:
        self.config, self.out = config, out
        self.inputs, self.labels = data.test if config.evaluate == "test" else data.validation
        self.training_inputs = data.train[0]
        self.model = build.build_model(config, data, 0)
        self.groups = build.groups(config, self.model)

    def predict(self, stage: Path, first: int, last: int, chain_masks: list[Mask] | None) -> list[Predictive]:
        """One predictive for every draw first, ..., last - 1 of every chain."""
        weights = WeightStore(stage / "draws")
        predictives = []
        for chain in range(self.config.chains):
            mask = chain_masks[chain] if chain_masks else None
            for draw in members(weights, chain, first, last):
                member = self._reestimated(draw, mask) if mask is not None else draw
                predictives.append(posterior_predictive(self.model, [member], self.inputs, mask))
        return predictives

    def _reestimated(self, draw: dict[str, Tensor], mask: Mask) -> dict[str, Tensor]:
        """The draw with BatchNorm statistics (if it has any) that fit the masked weights."""
        if not any(name.endswith("running_mean") for name in draw):
            return draw
        model = copy.deepcopy(self.model)
        model.load_state_dict(draw)
        masks.apply(mask, dict(model.named_parameters()))
        batchnorm.reestimate(model, self.training_inputs.split(BATCHNORM_BATCH)[:BATCHNORM_BATCHES])
        return model.state_dict()

    def row(self, predictives: list[Predictive], chain_masks: list[Mask] | None, **labels: Any) -> dict[str, Any]:
        """Metrics of the pooled predictive, and of the average single network."""
        singles = [summarise(p.probabilities, self.labels) for p in predictives]
        pooled = pool(predictives)
        each = chain_masks or []
        return {
            **labels,
            "sparsity": float(np.mean([masks.sparsity(m) for m in each])) if each else 0.0,
            "sparsity_all_parameters": float(np.mean([masks.total_sparsity(m, self.model) for m in each]))
            if each
            else 0.0,
            **summarise(pooled.probabilities, self.labels),
            "members": pooled.members,
            "single_accuracy": float(np.mean([s["accuracy"] for s in singles])),
            "single_nll": float(np.mean([s["nll"] for s in singles])),
        }


def evaluate(config: RunConfig, data: build.Data, out: Path, progress: bool = True) -> dict[str, Any]:
    """Compute everything that `metrics.json` holds, from the run directory.

    Returns
    -------
    dict
        `dense` (a row), `pruned` (rows with criterion, when, decision, target, sparsity, accuracy, nll, brier, ece,
        members, ...), `diagnostics`, `split`, `seed`.
    """
    evaluator = _Evaluator(config, data, out)
    draws = config.schedule.cycles * config.schedule.draws
    chains = [checkpoint.load(out / "checkpoints" / f"chain{c}.safetensors") for c in range(config.chains)]
    with tqdm(total=1 + _num_rows(config), desc="evaluate", unit="row", disable=not progress) as bar:
        predictives = evaluator.predict(out, 0, draws, None)
        dense = evaluator.row(predictives, None)
        _write_reliability(out, pool(predictives), evaluator.labels)
        bar.update(1)
        pruned = []
        for labels, chain_masks in post_hoc_masks(config, evaluator.groups, chains):
            predictives = evaluator.predict(out, 0, draws, chain_masks)
            pruned.append(evaluator.row(predictives, chain_masks, when="post_hoc", **labels))
            bar.update(1)
        for criterion, (k, target) in product(config.prune.in_chain, enumerate(config.prune.targets)):
            stage, n = out / "forks" / criterion, config.prune.draws
            chain_masks = [
                masks.load(stage / "masks" / f"chain{c}-{target:g}.safetensors") for c in range(config.chains)
            ]
            labels = {"criterion": criterion, "when": "in_chain", "decision": "target", "target": target}
            predictives = evaluator.predict(stage, k * n, (k + 1) * n, chain_masks)
            pruned.append(evaluator.row(predictives, chain_masks, **labels))
            bar.update(1)
    return {
        "split": config.evaluate,
        "seed": config.seed,
        "data": {"name": data.dataset.name, "official": data.dataset.provenance["official"]},
        "dense": dense,
        "pruned": pruned,
        "diagnostics": diagnostics(config, out),
    }


def _write_reliability(out: Path, predictive: Predictive, labels: Tensor) -> None:
    """Keep the bins of the dense reliability diagram, which a report cannot recompute without the data."""
    bins = reliability(predictive.probabilities, labels)
    content = {name: getattr(bins, name).tolist() for name in ("confidence", "accuracy", "count")}
    checkpoint.write_json(out / "reliability.json", checkpoint.finite_or_null(content))


def _num_rows(config: RunConfig) -> int:
    p = config.prune
    return len(p.targets) * (len(p.post_hoc) + len(p.in_chain)) + 2 * sum(
        c == "inclusion_probability" for c in p.post_hoc
    )


def post_hoc_masks(
    config: RunConfig, groups: Mapping[str, Any], chains: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[Mask]]]:
    """Every post-hoc decision on the dense chains: its labels, and one mask per chain.

    Raises
    ------
    ValueError
        If a criterion needs what the chains did not accumulate.
    """
    p = config.prune
    found: list[tuple[dict[str, Any], list[Mask]]] = []
    for criterion in p.post_hoc:
        scores = [chain_scores(criterion, state, groups, config.seed * 2**16 + c) for c, state in enumerate(chains)]
        for target in p.targets:
            labels: dict[str, Any] = {"criterion": criterion, "decision": "target", "target": target}
            chain_masks = [decision.target_sparsity(s, groups, target, p.allocation) for s in scores]
            if criterion == "random":
                first = [chain_scores(p.post_hoc[0], s, groups, 0) for s in chains]
                reference = [decision.target_sparsity(s, groups, target, p.allocation) for s in first]
                pairs = zip(scores, reference, strict=True)
                chain_masks = [decision.match_layer_sparsity(s, groups, m) for s, m in pairs]
            found.append((labels, chain_masks))
        if criterion == "inclusion_probability":
            probabilities = [inclusion_probabilities(state) for state in chains]
            labels = {"criterion": criterion, "decision": "median", "target": None}
            found.append((labels, [decision.median_probability_model(i, groups) for i in probabilities]))
            labels = {"criterion": criterion, "decision": f"fdr {p.fdr:g}", "target": None}
            found.append((labels, [decision.bayesian_false_discovery_rate(i, groups, p.fdr) for i in probabilities]))
    return found


def chain_scores(criterion: str, state: Mapping[str, Any], groups: Mapping[str, Any], seed: int) -> Scores:
    """Scores of one chain's groups from its running averages (higher = keep)."""
    if criterion == "random":
        return criteria.random(groups, seed)
    if criterion in ("inclusion_probability", "em_responsibility"):
        averages = _inclusion(state)
        included = {name: a.included for name, a in averages.items()}
        return criteria.inclusion_log_odds(included, {name: a.excluded for name, a in averages.items()})
    if criterion == "expected_log_odds":
        return {name: a.expected_log_odds for name, a in _inclusion(state).items()}
    moments = {name: _restored(Moments(), s) for name, s in state["moments"].items() if name in groups}
    mean = {name: m.mean for name, m in moments.items()}
    if criterion == "signal_to_noise":
        return criteria.signal_to_noise(mean, {name: m.variance for name, m in moments.items()}, groups)
    return criteria.magnitude(mean, groups)


def inclusion_probabilities(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Posterior inclusion probability of every group in one chain, shape (G,)."""
    return {name: a.included for name, a in _inclusion(state).items()}


def _inclusion(state: Mapping[str, Any]) -> dict[str, InclusionAverage]:
    if not state["inclusion"]:
        raise ValueError("this chain has no spike-and-slab prior, so it has no inclusion probabilities")
    return {name: _restored(InclusionAverage(), s) for name, s in state["inclusion"].items()}


def _restored(average: Any, state: Mapping[str, Any]) -> Any:
    average.load_state_dict(state)
    return average


def diagnostics(config: RunConfig, out: Path) -> dict[str, Any]:
    """Temperatures, convergence in function space and the hyperparameters, from the dense draws."""
    # xarray is imported in there, because compute machines often lack it.
    from sgmcmc_prune.inference_data import load

    tree = load(out)
    stats, posterior = tree["sample_stats"].to_dataset(), tree["posterior"].to_dataset()
    layers = [str(name) for name in posterior["layer"].values]
    hyperparameters = {
        name: dict(zip(layers, posterior[name].mean(("chain", "draw")).values.tolist(), strict=True))
        for name in ("inclusion_rate", "spike_variance", "slab_variance")
    }
    return {
        "draws_per_chain": int(stats.sizes["draw"]),
        "chains": config.chains,
        "kinetic_temperature": float(stats["kinetic_temperature"].mean()),
        "configurational_temperature": float(stats["configurational_temperature"].mean()),
        "temperature": temperature_verdict(config, tree),
        **in_function_space(out),
        **hyperparameters,
    }


def temperature_verdict(config: RunConfig, tree: Any) -> dict[str, Any]:
    """Judge the temperatures in a store; a batch is a cycle, or, in a chain of one cycle, sqrt(draws) draws."""
    stats, draws = tree["sample_stats"].to_dataset(), tree["sample_stats"].sizes["draw"]
    names = [str(name) for name in stats["parameter"].values]
    return judge(
        stats["parameter_kinetic_temperature"].values.astype(float),
        stats["configurational_temperature"].values,
        dict(zip(names, tree["constant_data"]["parameter_size"].values.tolist(), strict=True)),
        stats["excess_temperature"].astype(float).mean(("chain", "draw")).values.tolist(),  # NaN is left out
        temperature=config.sampler.temperature,
        momentum=tree.attrs["momentum"],
        integrator=tree.attrs["integrator"],
        batches=config.schedule.cycles if config.schedule.cycles > 1 else math.isqrt(draws),
    )
