"""Reference moments of the logistic regressions that `sgmcmc-prune certify` uses: long NUTS runs with blackjax.

    pip install blackjax jax && python tools/logistic_reference.py

writes sgmcmc_prune/certify/logistic_reference.json: for each moment its mean and Monte-Carlo standard error (over
chains). blackjax and jax are needed here only. The two-dimensional posterior is there to be compared with quadrature.
"""

import json
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc_prune.certify.logistic import REFERENCE, LogisticRegression, quadrature_target, reference_target

CHAINS, WARMUP, DRAWS = 64, 1000, 5000


def moments(target: LogisticRegression, seed: int) -> dict[str, list[float]]:
    """Mean and standard error of each coordinate and its square."""
    x, y = jnp.asarray(target.features), jnp.asarray(target.responses)

    def log_posterior(w: jax.Array) -> jax.Array:
        eta = x @ w
        return eta @ y - jnp.logaddexp(0.0, eta).sum() - target.prior_precision / 2 * (w @ w)

    def chain(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        warmup = blackjax.window_adaptation(blackjax.nuts, log_posterior)
        (state, parameters), _ = warmup.run(first, jnp.zeros(target.dimension), num_steps=WARMUP)
        step = blackjax.nuts(log_posterior, **parameters).step

        def one(state, key):
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(second, DRAWS))[1]

    run = jax.jit(chain)
    draws = np.stack([run(key) for key in jax.random.split(jax.random.key(seed), CHAINS)])
    found = {f"mean of w{j}": draws[..., j].mean(1) for j in range(target.dimension)}
    found |= {f"mean of w{j}^2": (draws[..., j] ** 2).mean(1) for j in range(target.dimension)}
    return {name: [float(v.mean()), float(v.std(ddof=1) / CHAINS**0.5)] for name, v in found.items()}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    reference: dict = {
        "made_by": f"tools/logistic_reference.py, blackjax {blackjax.__version__}, jax {jax.__version__}",
        "nuts": f"{CHAINS} chains of {DRAWS} draws after {WARMUP} steps of warm-up; [mean, standard error over chains]",
    }
    for number, target in enumerate([quadrature_target(), reference_target()]):
        reference[f"d = {target.dimension}"] = moments(target, seed=number)
    out = Path(__file__).parents[1] / "sgmcmc_prune" / "certify" / REFERENCE
    out.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(reference, indent=1))
