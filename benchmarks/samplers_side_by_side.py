"""Our samplers beside those of `posteriors` (PyTorch) and `blackjax` (JAX): bias and effective draws per gradient.

    pip install posteriors blackjax jax && python benchmarks/samplers_side_by_side.py

writes samplers_side_by_side.json and .md beside this file. All run on the same posteriors with the same step, friction
and temperature: in physical units the time step is h = sqrt(l / N) and the friction per step 1 - beta = 0.3 (for BAOAB
and OBABO the same l and beta in our own units, where h^2 = 2 l / (N (1 + beta))). blackjax's SGHMC draws its momentum
afresh every `num_integration_steps` = 10 steps, its default.

1024 independent replicates. The bias is that of the variance along the widest direction (Gaussian) or of E[w0^2]
(logistic regression), relative to the exact value, with its standard error over replicates. ESS per gradient is
Var(f) / (n Var(mean of f)), f being the position in that direction: a biased chain that is too hot may have more of it.

SGLD is one scheme in all three. SGHMC is not: posteriors 0.1.3 and blackjax 1.7.1 move the position by the old momentum
and the momentum by the gradient at the old position (explicit Euler), ours moves the position by the new momentum
(symplectic Euler). On a Gaussian of curvature a, k = l a, the variance is then too large by the factor
2 (1 - beta) (1 + beta + k) / ((1 - beta - k) (2 (1 + beta) + k)), which is 1.167 for the widest direction at l = 0.04,
instead of 1 / (1 - k / (2 (1 + beta))), which is 1.012.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sgmcmc_prune.certify.logistic import LogisticByQuadrature, quadrature_target
from sgmcmc_prune.certify.replicates import Replicates
from sgmcmc_prune.certify.targets import Gaussian, correlated_gaussian
from sgmcmc_prune.samplers import BAOAB, OBABO, SGHMC, SGLD
from sgmcmc_prune.text_table import format_rows

Array = NDArray[np.float64]
Target = Gaussian | LogisticByQuadrature
REPLICATES, BURN_IN, STEPS, MOMENTUM, INTEGRATION_STEPS = 1024, 300, 1500, 0.7, 10
#: Steps l for each posterior: explicit Euler diverges once beta + l a > 1, a being the largest curvature.
STEP_SIZES = {"Gaussian, d = 3": (0.01, 0.04), "logistic regression, d = 2": (0.2, 0.8)}


def log_posterior(target: Target, w: torch.Tensor) -> torch.Tensor:
    """log p(w | y), summed over replicates, as `posteriors` differentiates it."""
    if isinstance(target, Gaussian):
        return -target.num_data / 2 * (w @ torch.from_numpy(target.curvature) * w).sum()
    eta = w @ torch.from_numpy(target.features).T
    log_likelihood = eta @ torch.from_numpy(target.responses) - torch.nn.functional.softplus(eta).sum(1)
    return log_likelihood.sum() - target.prior_precision / 2 * w.square().sum()


def ours(make: Callable, momentum: bool) -> Callable[[Target, float], Iterator[Array]]:
    """A sampler of this library."""

    def run(target: Target, lr: float) -> Iterator[Array]:
        settings = {"momentum": MOMENTUM} if momentum else {}
        chains = Replicates(make, target, REPLICATES, lr=lr, **settings)
        chains.sampler.freeze()
        for _ in chains.advance(BURN_IN + STEPS):
            yield chains.w.numpy().copy()

    return run


def with_posteriors(name: str) -> Callable[[Target, float], Iterator[Array]]:
    """A sampler of `posteriors`: replicates are the rows of its parameter tensor."""

    def run(target: Target, lr: float) -> Iterator[Array]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from posteriors import sgmcmc

            h = math.sqrt(lr / target.num_data)
            friction = {} if name == "sgld" else {"alpha": (1 - MOMENTUM) / h}
            step = lr / target.num_data if name == "sgld" else h
            transform = getattr(sgmcmc, name).build(
                lambda w, batch: (log_posterior(target, w), torch.zeros(())), lr=step, **friction
            )
            start = torch.zeros(REPLICATES, target.dimension, dtype=torch.float64)
            state = transform.init(start)
            for _ in range(BURN_IN + STEPS):
                state, _ = transform.update(state, None)
                yield state.params.numpy().copy()

    return run


def with_blackjax(name: str) -> Callable[[Target, float], Iterator[Array]]:
    """A sampler of `blackjax`, with the same gradient written in JAX; `sghmc` yields every tenth position."""

    def run(target: Target, lr: float) -> Iterator[Array]:
        import blackjax
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)

        def slope(w: jax.Array, batch: None) -> jax.Array:
            if isinstance(target, Gaussian):
                return -target.num_data * w @ jnp.asarray(target.curvature)
            x, y = jnp.asarray(target.features), jnp.asarray(target.responses)
            return (y - jax.nn.sigmoid(w @ x.T)) @ x - target.prior_precision * w

        h = math.sqrt(lr / target.num_data)
        if name == "sgld":
            kernel, size, count = blackjax.sgld(slope), lr / target.num_data, BURN_IN + STEPS
        else:
            kernel, size = blackjax.sghmc(slope, INTEGRATION_STEPS, alpha=(1 - MOMENTUM) / h), h
            count = (BURN_IN + STEPS) // INTEGRATION_STEPS
        step = jax.jit(lambda key, w: kernel.step(key, w, None, size))
        w = jnp.zeros((REPLICATES, target.dimension))
        for key in jax.random.split(jax.random.key(0), count):
            w = step(key, w)
            yield np.asarray(w)

    return run


SAMPLERS = {
    "SGLD": ours(SGLD, False),
    "SGLD, posteriors": with_posteriors("sgld"),
    "SGLD, blackjax": with_blackjax("sgld"),
    "SGHMC": ours(SGHMC, True),
    "SGHMC, posteriors": with_posteriors("sghmc"),
    "SGHMC, blackjax": with_blackjax("sghmc"),
    "BAOAB": ours(BAOAB, True),
    "BAOA, posteriors": with_posteriors("baoa"),
    "OBABO": ours(OBABO, True),
}


def measure(target: Target, name: str, lr: float) -> dict[str, float | str]:
    """Bias, its standard error, and ESS per gradient."""
    if isinstance(target, Gaussian):
        values, vectors = np.linalg.eigh(target.curvature)
        direction, exact = vectors[:, 0], 1 / (target.num_data * values[0])
    else:
        direction, exact = np.eye(target.dimension)[0], target.moments[target.dimension].exact
    with np.errstate(all="ignore"):
        path = np.stack([w @ direction for w in SAMPLERS[name](target, lr)])
    every = (BURN_IN + STEPS) // len(path)
    path = path[BURN_IN // every :]
    second = (path**2).mean(0) / exact - 1
    ess = path.var() / (path.mean(0).var(ddof=1) * STEPS)
    error = second.std(ddof=1) / math.sqrt(REPLICATES)
    found = {"bias": float(second.mean()), "standard_error": float(error), "ess_per_gradient": float(ess)}
    if not all(map(math.isfinite, found.values())):
        found = dict.fromkeys(found, None)
    return {"target": target.name, "sampler": name, "lr": lr, **found}


def cells(row: dict) -> list[str]:
    """A row of the table."""
    if row["bias"] is None:
        return [row["sampler"], row["target"], f"{row['lr']:g}", "diverged", "", ""]
    numbers = [f"{row['bias']:+.1%}", f"{row['standard_error']:.1%}", f"{row['ess_per_gradient']:.4f}"]
    return [row["sampler"], row["target"], f"{row['lr']:g}", *numbers]


def main() -> None:
    """Measure everything and write both files."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for target in (correlated_gaussian(3), quadrature_target()):
        for lr in STEP_SIZES[target.name]:
            for name in SAMPLERS:
                rows.append(measure(target, name, lr))
                print(cells(rows[-1]), flush=True)
    versions = {name: version(name) for name in ("torch", "posteriors", "jax", "blackjax")}
    table = format_rows(("sampler", "target", "l", "bias", "std. error", "ESS / gradient"), [cells(r) for r in rows])
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    text = f"# Samplers side by side\n\n{__doc__.strip()}\n\nVersions: {said}.\n\n```\n{table}\n```\n"
    out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
