"""How hot each parameter tensor of a chain runs: its kinetic temperature, and the heat of minibatch noise."""

from collections import Counter
from collections.abc import Sequence

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.diagnostics import excess_temperature, gradient_variance
from sgmcmc_prune.preconditioners import inverse_mass
from sgmcmc_prune.samplers import SGNHT

#: Share of a chain's gradients that may go into measuring their noise, and how many at most for one measurement.
NOISE_SHARE, MAX_NOISE_BATCHES = 0.01, 32


def noise_batches(chain: Chain) -> int:
    """How many minibatches one measurement of gradient noise takes: two at least, which a variance needs."""
    steps_per_cycle = chain.schedule.num_steps / max(1, chain.schedule.cycles)
    return max(2, min(MAX_NOISE_BATCHES, int(NOISE_SHARE * steps_per_cycle)))


def excess_temperatures(chain: Chain) -> dict[str, float]:
    r"""Measure :math:`\frac{N\,lr}{2 (1 - \beta)} \overline{V_g / M}` of each parameter, averaged over kept entries.

    V_g comes from fresh minibatches at the present state; the chain goes on as if nothing had been measured. Empty for
    a sampler whose thermostat takes this heat out again.
    """
    if isinstance(chain.sampler, SGNHT):
        return {}
    steps = _fresh_steps(chain)
    spread = _spread(steps, chain.stream.batch_size, chain.stream.num_data)
    with chain.seeded(steps[0]):
        variances = gradient_variance(chain.model, chain.likelihood, (chain.stream.batch(step) for step in steps))
    found = {}
    for name, _, state, group in chain.sampler.named_states():
        if name in variances:
            ratio = inverse_mass(state.get("mass"), variances[name])
            kept = ratio[state["mask"]] if "mask" in state else ratio
            if kept.numel():
                variance = float(kept.double().mean()) / spread
                beta = group.get("momentum", 0.0)
                found[name] = excess_temperature(group["num_data"], group["lr"], variance, beta, mass=1.0)
    return found


def _fresh_steps(chain: Chain) -> range:
    """Steps that the chain will never take."""
    count = noise_batches(chain)
    first = chain.schedule.num_steps + chain.draws * count
    return range(first, first + count)


def _spread(steps: Sequence[int], batch_size: int, num_data: int) -> float:
    """Expected sample variance over minibatches, in units of the variance of one.

    Batches of one epoch do not overlap, so that their correlation is -B / (N - B); those of two are independent.
    """
    if batch_size == num_data:
        return 1.0
    epochs = Counter(step * batch_size // num_data for step in steps)
    pairs = sum(n * (n - 1) for n in epochs.values()) / (len(steps) * (len(steps) - 1))
    return 1 + pairs * batch_size / (num_data - batch_size)
