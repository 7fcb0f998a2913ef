"""The settings that `sample` chooses for a network and its data: batch, prior, lengths, and a step that is stable."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sgmcmc_prune.chains import step_size
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.chains.step_size import stable_step, train
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.run.config import DataConfig, PriorConfig, PruneConfig, RunConfig, SamplerConfig, ScheduleConfig
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import replace

#: Up to so many examples a batch holds all of them, which leaves no minibatch noise; above, so many, or as many as cost
#: the network so many multiply-adds, and so many at most.
FULL_BATCH, BATCH, MULTIPLY_ADDS, MOST = 5000, 256, 10_000_000, 20_000
#: The slab has this variance over the smallest fan-in of a layer, within bounds; the spike's is so many times smaller.
SLAB, SLAB_BOUNDS, SPIKE = 2.0, (0.005, 0.5), 16.0
#: Momentum of the default sampler with full batches, and with minibatches, whose noise heats a chain in proportion to
#: step / friction. Its step is so much of the stability limit.
MOMENTUM, MINIBATCH_MOMENTUM, SHARE = 0.99, 0.97, 0.1
#: Steps of a trial of that step, and how many there are at most; a trial ends them that needs no smaller step than so
#: much of it, and one that diverged lowers it by so much.
TRIAL_STEPS, TRIALS, ENOUGH, MOST_LOWERED = 500, 6, 0.7, 10.0
#: A trial is too hot above this kinetic temperature in its second half, and lowers the step by so much.
HOT, LOWERED = 2.0, 3.0
#: Steps of the default schedule, and the draws that each chain keeps of them.
BURN_IN, SAMPLE, DRAWS = 4000, 30_000, 250
#: Steps of a fork that prunes in the chain: exploring (half of them while the mask grows), sampling, and its draws.
#: They go with the default schedule; a shorter or longer one has a fork shorter or longer by the same factor.
EXPLORE, SAMPLE_PRUNED, DRAWS_PRUNED = 2000, 1000, 50


def default_prior(network: nn.Module) -> PriorConfig:
    """Spike-and-slab with a slab that keeps the size of what passes the narrowest layer."""
    if any(isinstance(p, torch.nn.UninitializedParameter) for p in network.parameters()):
        raise ValueError("the network has lazy layers without a shape; pass one batch through it first")
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("every parameter of the network is frozen (requires_grad False); there is nothing to sample")
    fan_ins = [p[0].numel() for p in prunable(network).values()]
    if not fan_ins:
        raise ValueError("the network has no weight matrix; a prior without indicators has to be named: prior=...")
    slab = min(max(SLAB / min(fan_ins), SLAB_BOUNDS[0]), SLAB_BOUNDS[1])
    return PriorConfig(slab_variance=slab, spike_variance=slab / SPIKE)


def affordable_batch(network: nn.Module, example: Tensor, count: int) -> int:
    """As many of so many examples as a step can afford: all, where that is possible, for noise heats the chains."""
    if count <= FULL_BATCH:
        return count
    if not example.is_floating_point():  # tokens are looked up, which no multiply-add counts
        return BATCH
    try:
        each = multiply_adds(network, example)
    except (IndexError, RuntimeError, TypeError, ValueError):  # the rehearsal of the network says it in words
        each = None
    return min(max(BATCH, MULTIPLY_ADDS // max(each, 1)), MOST, count) if each is not None else BATCH


def default_schedule(epochs: float, length: float = 1.0) -> ScheduleConfig:
    """Burn-in and sampling of so many epochs a step, in which all draws are kept that fit.

    A shorter chain has the whole burn-in: from where the training before it ended, a learned noise may take thousands
    of steps.
    """
    burn_in, steps = round(max(1.0, length) * BURN_IN), max(1, round(length * SAMPLE))
    return ScheduleConfig(
        burn_in * epochs, cycles=1, explore=0.0, sample=steps * epochs, relax=0.0, draws=min(DRAWS, steps)
    )


def default_settings(batch_size: int, num_data: int, prior: PriorConfig, schedule: ScheduleConfig | None) -> RunConfig:
    """The settings of a run, but for its parts that are objects; the sampler's step is still to be found."""
    epochs = batch_size / num_data  # of a step
    schedule = schedule or default_schedule(epochs)
    indicators = prior.family == "spike_slab"
    post_hoc = ("em_responsibility" if prior.mode == "em" else "inclusion_probability",) if indicators else ()
    return RunConfig(
        preset="sample",
        data=DataConfig(name="given:data", validation=0, batch_size=batch_size),
        sampler=_constant_step(1.0, momentum=MOMENTUM),
        prior=prior,
        em=EMSettings(kind="fixed"),
        schedule=schedule,
        prune=PruneConfig(
            targets=(0.5, 0.8, 0.9),
            post_hoc=(*post_hoc, "magnitude"),
            in_chain=(),
            decisions=("median",) if indicators and prior.mode != "em" else (),
            **_fork_lengths(schedule, epochs),
        ),
        start="trained",
        probes=min(64, num_data),
        keep_weight_draws=True,
    )


def _fork_lengths(schedule: ScheduleConfig, epochs: float) -> dict[str, Any]:
    """Of a fork that prunes in the chain, as long beside the schedule as the default beside the default one.

    With `epochs` of a step, of one step at least.
    """
    steps = (schedule.burn_in + schedule.cycles * (schedule.explore + schedule.sample)) / epochs
    scale = steps / (BURN_IN + SAMPLE)
    explore, kept = (max(1, round(scale * length)) for length in (EXPLORE, SAMPLE_PRUNED))
    return {
        "explore": explore * epochs,
        "sample": kept * epochs,
        "relax": 0.0,
        "draws": min(DRAWS_PRUNED, kept),
    }


def _constant_step(lr: float, momentum: float) -> SamplerConfig:
    """BAOAB, whose positions have no step-size bias where the posterior is Gaussian."""
    return SamplerConfig("baoab", lr=lr, lr_explore=lr, lr_min=lr, momentum=momentum, preconditioner="identity")


def stable_sampler(run: Run, progress: bool) -> SamplerConfig:
    """A step that the sampler can follow, to two digits; the network was rehearsed.

    It is a share of the stability limit at a mode, and then where a short chain with that step has gone: a posterior
    whose mode is flat, as that of classes which can be told apart, is steep beside it. A chain that was heated there
    had too large a step, whatever the limit is where it ended: the weights of one that ran away are large, and the
    curvature may be low there.
    """
    momentum = MOMENTUM if run.config.data.batch_size == run.num_data else MINIBATCH_MOMENTUM
    network, stream, prior = run.model(0), run.stream(0), run.config.prior
    narrowest = prior.spike_variance if prior.family == "spike_slab" else prior.slab_variance

    def share_of_limit(at: nn.Module) -> float:
        return stable_step(at, run.likelihood, stream, 1 / (run.num_data * narrowest), momentum, SHARE)

    most = step_size.FIT_STEPS + TRIALS * TRIAL_STEPS
    if progress:
        print(f"first a training and trial chains, of {most:,} steps at most, find a step size for the sampler")
    with progress_bar(most, "step", desc="finding a step size", disable=not progress) as bar:
        train(network, run.likelihood, stream, bar.update)
        step = share_of_limit(network)
        if not 0 < step < math.inf:
            raise ValueError(
                "no stable step was found: a short training of the network diverged; give one as sampler=..."
            )
        for trial in range(1, TRIALS + 1):
            bar.set_postfix_str(f"trial {trial} of a chain with step {step:.1e}")
            moved, temperature = _moved(run, network, _constant_step(step, momentum), bar)
            limit = 0.0 if moved is None else share_of_limit(moved)
            if temperature > HOT:
                limit = min(limit, step / LOWERED)
            if limit >= step * ENOUGH:
                break
            step = max(limit, step / MOST_LOWERED)
        bar.total = bar.n  # the other trials are not needed
        bar.set_postfix_str(f"step {step:.1e}")
    return _constant_step(float(f"{step:.1e}"), momentum)


def _moved(run: Run, network: nn.Module, sampler: SamplerConfig, bar: tqdm) -> tuple[nn.Module | None, float]:
    """The network after a short chain from where it is, None if that diverged; its mean kinetic temperature."""
    trial = Run(replace(run.config, sampler=sampler), None, run.data, run.network, run.likelihood)
    lr, beta = sampler.lr, sampler.momentum
    chain = trial.chain(0, Cyclical(lr, lr, lr, beta, sampler.temperature, TRIAL_STEPS, 0, 0, 0))
    chain.model.load_state_dict(network.state_dict())
    seen = []
    try:
        while not chain.finished:
            chain.advance()
            bar.update()
            if chain.step > TRIAL_STEPS // 2:
                seen.append(chain.kinetic_temperature())
    except RunError:
        return None, math.inf
    return chain.model, sum(seen) / len(seen)
