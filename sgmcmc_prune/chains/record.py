"""What a chain leaves in the store: probes and statistics of each draw, and the trace of the whole run."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.heat import excess_temperatures
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.diagnostics import kinetic_temperature
from sgmcmc_prune.likelihoods import ObservationModel
from sgmcmc_prune.noise import random_words
from sgmcmc_prune.priors import Prior, SpikeSlab
from sgmcmc_prune.pruning import batchnorm
from sgmcmc_prune.store.draws import Group, Variable

PHASES = ("burn_in", "explore", "sample")
NUM_WEIGHT_PROBES = 32
#: Up to so many groups, every draw keeps the inclusion probability of each; above, the share of each layer alone.
MOST_GROUPS = 10_000

Values = dict[str, Any]


def at_probes(
    likelihood: ObservationModel, outputs: Tensor, targets: Tensor, generator: torch.Generator
) -> dict[str, Values]:
    """What one draw says of the probes, by group of the store.

    Log-likelihoods are float64: `arviz.loo` takes the exponential of their negative, which overflows float32 at 89.

    Parameters
    ----------
    likelihood : ObservationModel
    outputs : Tensor, shape (probe, output)
        Of the network.
    targets : Tensor, shape (probe, ...)
    generator : torch.Generator
        Draws a target for each probe.
    """
    predicted = {likelihood.expected[0]: likelihood.mean(outputs).cpu().numpy()}
    if likelihood.draws_targets:
        predicted["y"] = likelihood.draw(outputs.float().cpu(), generator).reshape(targets.shape).numpy()
    return {
        "posterior": {likelihood.stored[0]: outputs.cpu().numpy()},
        "log_likelihood": {"y": -likelihood(outputs, targets).cpu().double().numpy()},
        "posterior_predictive": predicted,
    }


def dims_at_probes(likelihood: ObservationModel, targets: Tensor) -> dict[str, tuple[str, ...]]:
    """The dimensions of what `at_probes` gives, by name; "y" are targets, while a log-likelihood has one per probe."""
    return {
        likelihood.stored[0]: ("probe", likelihood.stored[1]),
        likelihood.expected[0]: ("probe", likelihood.expected[1]),
        "y": ("probe", *("component",) * (targets.ndim - 1)),
    }


class Recorder:
    """Computes the values of one draw or one trace record, and knows their layout.

    Parameters
    ----------
    inputs, targets : Tensor, shapes (probe, ...) and (probe, ...)
        The fixed probe batch (`run.data.choose_probes`), as the network takes it.
    likelihood : ObservationModel
        What the outputs mean.
    num_outputs : int
    layers : sequence of str
        Names of the sparse (or, without such a prior, prunable) parameters.
    parameters : dict of str to Tensor
        All parameters, for the choice of the probed weights.
    prior : Prior or None
        Whose hyperparameters are recorded, by layer.
    statistics : callable
        Gives the input batches from which BatchNorm's statistics are estimated, for a draw as for its evaluation.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        likelihood: ObservationModel,
        num_outputs: int,
        layers: Sequence[str],
        parameters: dict[str, Tensor],
        prior: Prior | None,
        statistics: Callable[[], Sequence[Tensor]] = tuple,
    ) -> None:
        self.statistics = statistics
        self.inputs, self.targets, self.layers = inputs, targets, list(layers)
        self.likelihood, self.num_outputs = likelihood, num_outputs
        self.weights = _choose_weights({n: p for n, p in parameters.items() if n in self.layers})
        self.sizes = {name: p.numel() for name, p in parameters.items()}
        self.hyperparameters = list(dict.fromkeys(key for values in self._by_layer(prior) for key in values))
        self.group_maps = {n: layer.groups for n, layer in prior.layers.items()} if isinstance(prior, SpikeSlab) else {}
        held = isinstance(prior, SpikeSlab) and prior.mode == "em"
        self.included = "em_responsibility" if held else "inclusion_probability"
        self.num_groups = sum(groups.num_groups for groups in self.group_maps.values())
        self.follows_groups = 0 < self.num_groups <= MOST_GROUPS

    def groups(self, draws: int, records: int) -> dict[str, Group]:
        """Layout of the store for `draws` draws and `records` trace records a chain."""
        layer, probe = (len(self.layers),), (len(self.targets),)
        per_layer = {name: Variable(("layer",), layer) for name in self.hyperparameters}
        scalar = Variable((), (), "float64")
        outputs, output = self.likelihood.stored
        included = {"share_included": Variable(("layer",), layer)} if self.group_maps else {}
        if self.follows_groups:
            included[self.included] = Variable(("group",), (self.num_groups,))
        posterior = {
            **per_layer,
            **included,
            "weight_norm": Variable(("layer",), layer),
            "weights": Variable(("weight",), (len(self.weights),)),
            outputs: Variable(("probe", output), (*probe, self.num_outputs)),
        }
        statistics = ("lp", "step_size", "temperature", "kinetic_temperature", "configurational_temperature")
        stats = {name: scalar for name in (*statistics, "grad_norm", "sparsity")}
        stats |= {"cycle": Variable((), (), "int64"), "diverging": Variable((), (), "bool")}
        heat = ("parameter_kinetic_temperature", "excess_temperature")
        stats |= {name: Variable(("parameter",), (len(self.sizes),)) for name in heat}
        trace = ("step", "loss", "step_size", "temperature", "kinetic_temperature", "sparsity", "phase")
        return {
            "posterior": Group("draw", draws, posterior),
            "sample_stats": Group("draw", draws, stats),
            "log_likelihood": Group("draw", draws, {"y": Variable(("probe",), probe, "float64")}),
            "posterior_predictive": Group("draw", draws, self._predictive()),
            "training": Group("record", records, {**{name: scalar for name in trace}, **per_layer}),
        }

    def _predictive(self) -> dict[str, Variable]:
        """One target drawn for each probe, and its expectation."""
        name, dims = self.likelihood.expected[0], dims_at_probes(self.likelihood, self.targets)
        width = self.likelihood.mean(torch.zeros(1, self.num_outputs)).shape[1]
        found = {name: Variable(dims[name], (len(self.targets), width))}
        if self.likelihood.draws_targets:
            kind = "int64" if self.likelihood.targets == "labels" else "float32"
            found["y"] = Variable(dims["y"], tuple(self.targets.shape), kind)
        return found

    def coords(self) -> dict[str, Any]:
        """Names of layers, probed weights, parameters and groups."""
        weights = [label for _, _, label in self.weights]
        found: dict[str, Any] = {"layer": self.layers, "weight": weights, "parameter": list(self.sizes)}
        if self.follows_groups:  # of a large network they would be millions of words
            found["group"] = [f"{name}{place}" for name, g in self.group_maps.items() for place in g.labels()]
        return found

    @torch.no_grad()
    def draw(self, chain: Chain, plan: Plan) -> dict[str, Values]:
        """The values of the current state as a draw."""
        outputs = self._network(chain.model).eval()(self.inputs)
        outputs = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        generator = seeded_generator("posterior predictive", chain.stream.seed, chain.index, chain.step)
        probed = at_probes(self.likelihood, outputs, self.targets, generator)
        params = chain.parameters
        posterior = {
            **self._hyperparameters(chain.prior),
            **self._included(chain, plan.temperature),
            "weight_norm": [float(params[name].norm()) for name in self.layers],
            "weights": [float(params[name].flatten()[index]) for name, index, _ in self.weights],
            **probed["posterior"],
        }
        gradients = [p.grad for p in params.values() if p.grad is not None]
        stats = {
            "lp": self._log_posterior(chain),
            **self._step_statistics(chain, plan),
            **self._heat(chain),
            "configurational_temperature": chain.configurational_temperature(),
            "grad_norm": float(torch.stack([g.norm() for g in gradients]).norm()),
            "cycle": plan.cycle,
            "diverging": False,
        }
        return {**probed, "posterior": posterior, "sample_stats": stats}

    def _included(self, chain: Chain, temperature: float) -> Values:
        """p(gamma = 1 | w) of every group, and its mean over each layer; 0 where a mask has removed the group."""
        if not isinstance(prior := chain.prior, SpikeSlab):
            return {}
        shares: dict[str, float] = {}
        followed: list[Tensor] = []
        for name, layer in prior.layers.items():
            odds = prior.log_odds(name, chain.parameters[name], temperature)
            included = torch.sigmoid(odds).mul(layer.alive).float()
            shares[name] = float(included.mean())
            if self.follows_groups:  # else they stay on the device
                followed.append(included.cpu())
        found: Values = {"share_included": [shares[name] for name in self.layers]}
        return found | ({self.included: torch.cat(followed).numpy()} if followed else {})

    def _network(self, model: nn.Module) -> nn.Module:
        """A copy of the network that predicts as it will be evaluated: running statistics are those of past weights."""
        network = copy.deepcopy(model)
        if batchnorm.layers(network):
            batchnorm.reestimate(network, self.statistics())
        return network

    def record(self, chain: Chain, plan: Plan) -> Values:
        """The values of the current state for the trace of the whole run."""
        return {
            "step": chain.step,
            "loss": chain.loss,
            "phase": PHASES.index(plan.phase),
            **self._step_statistics(chain, plan),
            **self._hyperparameters(chain.prior),
        }

    @staticmethod
    def _step_statistics(chain: Chain, plan: Plan) -> Values:
        masked = sum(int((~chain.mask[name]).sum()) for name in chain.moments if name in chain.mask)
        prunable = sum(chain.parameters[name].numel() for name in chain.moments)
        return {
            "step_size": plan.lr,
            "temperature": plan.temperature,
            "kinetic_temperature": chain.kinetic_temperature(),
            "sparsity": masked / max(prunable, 1),
        }

    def _heat(self, chain: Chain) -> Values:
        """Temperatures by parameter; gradient noise is measured at the first draw of each cycle only."""
        kinetic = {name: kinetic_temperature(*square) for name, square in chain.sampler.momentum_squares().items()}
        first = (chain.draws - 1) % chain.schedule.draws_per_cycle == 0
        excess = excess_temperatures(chain) if first else {}
        return {
            "parameter_kinetic_temperature": [kinetic.get(name, math.nan) for name in self.sizes],
            "excess_temperature": [excess.get(name, math.nan) for name in self.sizes],
        }

    def _by_layer(self, prior: Prior | None) -> list[dict[str, float]]:
        return [prior.hyperparameters(name) if prior is not None else {} for name in self.layers]

    def _hyperparameters(self, prior: Prior | None) -> Values:
        """By name, one number for each layer; NaN for a layer that does not have it."""
        by_layer = self._by_layer(prior)
        return {key: [values.get(key, math.nan) for values in by_layer] for key in self.hyperparameters}

    @staticmethod
    def _log_posterior(chain: Chain) -> float:
        """Minibatch estimate of log p(D | w) + log p(w), from the loss before the last step."""
        prior = float(chain.prior.log_density(chain.parameters)) if chain.prior is not None else 0.0
        return -chain.stream.num_data * chain.loss + prior


def _choose_weights(parameters: dict[str, Tensor]) -> list[tuple[str, int, str]]:
    """A fixed random choice of weights to follow: (parameter, flat index, label), the same for every run of a model."""
    if not parameters:
        return []
    sizes = [p.numel() for p in parameters.values()]
    words = random_words(0, 0, 2**16 - 1, 0, 0, NUM_WEIGHT_PROBES)
    chosen = sorted({int(w) % sum(sizes) for w in words})
    probes = []
    for position in chosen:
        for (name, p), size in zip(parameters.items(), sizes, strict=True):
            if position < size:
                index = [int(i) for i in np.unravel_index(position, tuple(p.shape))]
                probes.append((name, position, f"{name}{index}"))
                break
            position -= size
    return probes
