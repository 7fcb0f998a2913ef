"""One Markov chain: network, sampler, prior, EM, schedule and running averages, and everything a resume needs.

The state after step t is a pure function of the configuration, the seed and the chain's index: minibatches, noise and
schedules are functions of the step, so a chain that was saved and restored goes on as if nothing had happened.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.chains.forward import Precision, minibatch_nll, seeded
from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.schedules import Cyclical, Phase, Plan
from sgmcmc_prune.criteria.base import Criterion
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.diagnostics import configurational_temperature, kinetic_temperature
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import Likelihood, check_targets
from sgmcmc_prune.machine.distributed import ALONE, Ranks
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.priors.em import EM, ScaleEM
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.pruning.inclusion import InclusionAverage, Moments, Observed
from sgmcmc_prune.pruning.prunable import prunable, trainable
from sgmcmc_prune.samplers import Sampler

#: Steps between two looks at the loss on a GPU.
LOSS_CHECK_EVERY = 50
#: What of a saved state lies where the network does.
PARTS = ("pruner", "mask", "inclusion", "moments", "observed")


class Chain:
    """A chain that `advance`s one step at a time.

    Parameters
    ----------
    index : int
        The chain's number, the key of its noise and minibatches.
    model : nn.Module
    sampler : Sampler
        Built on `model.named_parameters()`.
    schedule : Cyclical
    stream : MinibatchStream
        Its number of examples must be the sampler's `num_data`.
    likelihood : Likelihood
    em : EM, ScaleEM or None
        Runs in the phases `adapt`, at steps with noise only; never while draws are collected.
    pruner : Pruner or None
        Grows a mask while exploring.
    adapt : tuple of Phase
        The phases in which hyperparameters and (burn-in only) the mass matrix adapt.
    indicator_every : int
        Steps between two Gibbs updates of the prior's latent variables (indicators in mode "gibbs", local scales).
    ranks : Ranks
        The processes that share every minibatch of the chain.
    precision : {"float32", "bfloat16"}
        Of the forward pass, by autocast; weights, momenta and the loss stay in the type of the weights.
    compiled : bool
        Compile forward and backward pass with `torch.compile`; on CUDA with CUDA graphs.
    criteria : mapping of str to Criterion
        Those that rank the finished draws by averages of their own; the chain observes for them.
    """

    def __init__(
        self,
        index: int,
        model: nn.Module,
        sampler: Sampler,
        schedule: Cyclical,
        stream: MinibatchStream,
        likelihood: Likelihood,
        em: EM | ScaleEM | None = None,
        pruner: Pruner | None = None,
        adapt: tuple[Phase, ...] = ("burn_in",),
        indicator_every: int = 1,
        ranks: Ranks = ALONE,
        precision: Precision = "float32",
        compiled: bool = False,
        criteria: Mapping[str, Criterion] | None = None,
    ) -> None:
        num_data = sampler.param_groups[0]["num_data"]
        if num_data != stream.num_data:
            raise ValueError(
                f"the sampler's num_data is {num_data}, but the minibatches come from {stream.num_data} examples; "
                "they must agree, or prior and noise are scaled wrongly"
            )
        check_targets(likelihood, stream.targets)
        self.index, self.model, self.sampler, self.schedule = index, model, sampler, schedule
        self.stream, self.likelihood, self.em, self.pruner = stream, likelihood, em, pruner
        self.adapt, self.indicator_every, self.ranks = adapt, indicator_every, ranks
        self.network, self.precision = ranks.network(model), precision
        if compiled:
            on_cuda = next(model.parameters()).device.type == "cuda"
            self.network = torch.compile(self.network, mode="reduce-overhead" if on_cuda else None)  # type: ignore[assignment]
        self.parameters: dict[str, Tensor] = dict(trainable(model))
        self.prior = sampler.prior
        self.step = 0
        self.draws = 0
        self.records = 0
        self._loss: Tensor | float = math.nan
        self.mask: dict[str, Tensor] = {}
        self._dot: Tensor | float = 0.0
        self._dots = 0
        sparse = list(self.prior.layers) if isinstance(self.prior, SpikeSlab) else []
        self.inclusion = {name: InclusionAverage() for name in sparse}
        self.moments = {name: Moments() for name in prunable(model)}
        self.criteria = dict(criteria or {})
        self.observed = {key: Observed(criterion.log_space) for key, criterion in self.criteria.items()}

    @property
    def finished(self) -> bool:
        """Whether the schedule has ended."""
        return self.step >= self.schedule.num_steps

    def advance(self) -> Plan:
        """Take one step; if it made a draw, add it to the running averages.

        Raises
        ------
        RunError
            If the loss is not finite: the chain has diverged.
        """
        plan = self.begin()
        self._gradient()
        self.complete(plan)
        return plan

    def begin(self) -> Plan:
        """What comes before the gradient of a step: the schedule's settings, a new mask, latent variables."""
        plan = self.schedule(self.step)
        self._configure(plan)
        if self.pruner is not None and plan.phase != "burn_in":
            mask = self.pruner.update(self.step, plan, self.parameters, self.prior)
            if mask is not None:
                self.set_mask(mask)
        if self.prior is not None and self.step % self.indicator_every == 0:
            self.prior.sample_latent(self.parameters, self.step, plan.temperature)
        return plan

    def complete(self, plan: Plan) -> None:
        """What comes after the gradient: the sampler's step, EM, and the averages if this was a draw."""
        self.move(plan)
        self.keep(plan)

    def move(self, plan: Plan) -> None:
        """The sampler's step and EM."""
        if plan.phase == "sample" and not plan.relaxing:
            self._accumulate_dot()
        self.sampler.step()
        self.step += 1
        self._adapt(plan)

    def keep(self, plan: Plan) -> None:
        """Add the state to the running averages if it is a draw, and end a batch of draws."""
        if plan.collect:
            self.check()
            self._collect(plan)
        if plan.end_of_cycle or self._batch_is_full(plan):
            for average in self.inclusion.values():
                average.end_batch()

    def _batch_is_full(self, plan: Plan) -> bool:
        """Whether a batch of draws ends here: a cycle is one, and a chain of one cycle has sqrt(draws) of them."""
        s = self.schedule
        return plan.collect and s.cycles == 1 and self.draws % math.isqrt(s.draws_per_cycle) == 0

    def _configure(self, plan: Plan) -> None:
        settings = {"lr": plan.lr, "temperature": plan.temperature}
        if "momentum" in self.sampler.defaults:
            settings["momentum"] = plan.momentum
        self.sampler.configure(**settings)
        if plan.phase != "burn_in":
            self.sampler.freeze()

    def _gradient(self) -> None:
        self.model.train()
        batch_size = self.stream.batch_size
        batch = self.stream.batch(self.step, self.ranks.part(batch_size))
        share = len(batch[1]) / batch_size
        loss = minibatch_nll(self.network, self.likelihood, batch, self.precision, self.seeded(self.step))
        self.set_loss(loss.detach() if self.ranks.size == 1 else self.ranks.added(share * loss.detach().double()))
        self.sampler.zero_grad()
        self.ranks.backward(loss, share)
        for p in self.parameters.values():
            if p.grad is None:  # a branch that the network skipped at this step
                p.grad = torch.zeros_like(p)

    def seeded(self, step: int) -> AbstractContextManager[None]:
        """Key what the network itself draws, such as dropout, by the step: then it, too, is no matter of a resume."""
        device = next(iter(self.parameters.values())).device
        return seeded(device, self.stream, step, self.ranks.rank)

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of the last minibatch; NaN before the first."""
        return float(self._loss)

    def set_loss(self, loss: Tensor | float) -> None:
        """Take note of the minibatch's loss; RunError if it is not finite: the chain has diverged.

        A GPU is not waited for at every step, but every `LOSS_CHECK_EVERY` and before a draw.
        """
        self._loss = loss
        if not isinstance(loss, Tensor) or loss.device.type == "cpu" or self.step % LOSS_CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise RunError if the chain has diverged; on a GPU this waits for the device."""
        self.sampler.check()
        if not math.isfinite(self.loss):
            raise self.diverged(f"the loss is {self.loss}")

    def diverged(self, why: str, instead: str = "") -> RunError:
        """The error of a chain that has diverged; `instead` is another way out than smaller steps."""
        return RunError(
            f"chain {self.index} diverged at step {self.step}: {why}. Lower the step size "
            f"(lr is {self.sampler.param_groups[0]['lr']:.3g} at this step){instead}; what was stored before this step "
            "is kept"
        )

    @torch.no_grad()
    def _accumulate_dot(self) -> None:
        """Add <w, dU/dw> of this minibatch, whose mean over steps estimates the configurational temperature."""
        for name, p, _, group in self.sampler.named_states():
            if p.grad is not None:
                force = self.sampler.force(name, p, group["num_data"])
                self._dot = self._dot + torch.dot(force.flatten(), p.flatten()).double() * group["num_data"]
        self._dots += 1

    def _adapt(self, plan: Plan) -> None:
        epoch_ends = self.step % max(1, int(self.stream.steps_per_epoch)) == 0
        if plan.phase == "burn_in" and (epoch_ends or self.step == self.schedule.burn_in):
            self.sampler.refresh_preconditioner()
        em = self.em
        noisy = plan.phase in self.adapt and plan.temperature > 0
        if em is not None and noisy and em.settings.due(self.step, plan.phase == "burn_in"):
            em.update(self.parameters, plan.temperature)

    def _collect(self, plan: Plan) -> None:
        self.draws += 1
        if isinstance(self.prior, SpikeSlab):
            for name, average in self.inclusion.items():
                eta = self.prior.log_odds(name, self.parameters[name])
                average.update(eta, self.prior.indicator_temperature(plan.temperature))
        for name, moments in self.moments.items():
            moments.update(self.parameters[name])
        for key, observed in self.observed.items():
            weights = {name: self.parameters[name].detach().clone() for name in self.moments}
            with choices.calling("criterion", key):
                observe = self.criteria[key].observe
                observed.update({n: observe(self.prior, n, w, plan.temperature) for n, w in weights.items()})

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Apply a mask from now on; the running averages restart, because the target has changed."""
        self.mask = dict(mask)
        self.sampler.set_mask(mask)
        if self.prior is not None:
            self.prior.set_mask(mask)
        if self.em is not None:
            self.em.restart()
        self.restart_averages()

    def restart_averages(self) -> None:
        """Forget the draws so far in the inclusion probabilities and moments."""
        self.inclusion = {name: InclusionAverage() for name in self.inclusion}
        self.moments = {name: Moments() for name in self.moments}
        self.observed = {key: Observed(criterion.log_space) for key, criterion in self.criteria.items()}

    def settle(self) -> None:
        """Bring the state up to date before somebody looks at it: that of a chain of this class always is."""

    def kinetic_temperature(self) -> float:
        """That of all momenta together as they are; NaN for a sampler without."""
        squares = list(self.sampler.momentum_squares().values())
        return kinetic_temperature(sum(square for square, _ in squares), sum(dimension for _, dimension in squares))

    def configurational_temperature(self) -> float:
        """<w, dU/dw> / d averaged over the sampling steps since the last call; NaN without any."""
        dimension = sum(p.numel() for p in self.parameters.values())
        dimension -= sum(int((~m).sum()) for m in self.mask.values())
        mean_dot = float(self._dot) / self._dots if self._dots else math.nan
        self._dot, self._dots = 0.0, 0
        return configurational_temperature(mean_dot, dimension)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.step,
            "draws": self.draws,
            "records": self.records,
            "loss": self.loss,
            "dot": [float(self._dot), self._dots],
            "model": network_state(self.model),
            "sampler": self.sampler.state_dict(),
            "prior": self.prior.state_dict() if self.prior is not None else None,
            "em": self.em.state_dict() if self.em is not None else None,
            "pruner": self.pruner.state_dict() if self.pruner is not None else None,
            "mask": self.mask,
            "inclusion": {name: a.state_dict() for name, a in self.inclusion.items()},
            "moments": {name: m.state_dict() for name, m in self.moments.items()},
            **({"observed": {key: a.state_dict() for key, a in self.observed.items()}} if self.observed else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, into a chain of the same configuration; its tensors may lie elsewhere."""
        self.load_position(state)
        device = next(iter(self.parameters.values())).device
        state = {**state, **{key: _moved(state[key], device) for key in PARTS if key in state}}
        self.step, self.draws, self.records = state["step"], state["draws"], state["records"]
        self._loss = state["loss"]
        self._dot, self._dots = state["dot"]
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.mask = dict(state["mask"])
        for name, average in self.inclusion.items():
            average.load_state_dict(state["inclusion"][name])
        for name, moments in self.moments.items():
            moments.load_state_dict(state["moments"][name])
        for key, observed in self.observed.items():
            if key not in state.get("observed", {}):
                raise ValueError(f"the chain was started without criterion {key}, and has not observed for it")
            observed.load_state_dict(state["observed"][key])

    def load_position(self, state: Mapping[str, Any]) -> None:
        """Start from another chain's weights, sampler, prior and EM state, but at step 0 of this schedule: a fork."""
        load_network_state(self.model, state["model"])
        self.sampler.load_state_dict(state["sampler"])
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])
        if self.em is not None:
            self.em.load_state_dict(state["em"])


def _moved(tree: Any, device: torch.device) -> Any:
    """A nested state with all its tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, Mapping):
        return {key: _moved(value, device) for key, value in tree.items()}
    return tree
