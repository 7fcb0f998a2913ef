r"""What cools a chain that minibatches heat: five ways to take them, on a posterior that is known.

    python benchmarks/minibatch_noise.py

Linear regression with N = 960 examples, unit noise and two features, one a tenth as stiff as the other; a flat prior,
T = 1, momentum 0.9, `BAOAB`, whose positions have no bias of their own on a Gaussian. So all that a variance has above
the exact one is the heat of minibatches. Each way spends the same gradient evaluations:

    independent      every batch drawn anew from all examples
    permutations     one random order for each pass, as this library takes them
    there and back   one random order for two passes, the second in reverse (symmetric minibatch splitting)
    four times       permutations, batches of 240 in place of 60, and a quarter of the steps
    control variate  permutations; the gradient at w minus that at the mode of the same batch: two gradients for one, so
                     half of the steps

Variances are those of the exact posterior's two axes, means over all draws of 100 chains, which start in equilibrium;
the error is that of the mean over chains. The table goes to `minibatch_noise.md`, the rows to `minibatch_noise.json`.

References
----------
Paulin, Whalley, Chada, Leimkuhler: Sampling from Bayesian neural network posteriors with symmetric minibatch splitting
Langevin dynamics (arXiv 2410.19780).
Baker, Fearnhead, Fox, Nemeth: Control variates for stochastic gradient MCMC (Statistics and Computing 2019).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.samplers.baoab import baoab
from sgmcmc_prune.text_table import format_rows

N, BATCH, CHAINS, MOMENTUM, PASSES = 960, 60, 100, 0.9, 3000
STEPS = (0.003, 0.01, 0.03)
#: Passes that are left out, by the step: what was heated is in equilibrium with its heat after them.
SETTLE = 600
HERE = Path(__file__).with_suffix("")
WAYS = ("independent", "permutations", "there and back", "four times", "control variate")


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features on the axes of the posterior, targets, the mode and the variances of the two axes, float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 2, generator=generator, dtype=torch.float64)
    q, _ = torch.linalg.qr(x)  # exact axes, so that both variances are numbers of their own
    x = q * torch.tensor([1.0, 0.1**0.5], dtype=torch.float64) * N**0.5
    y = x.sum(1) + torch.randn(N, generator=generator, dtype=torch.float64)
    precision = x.T @ x
    return x, y, torch.linalg.solve(precision, x.T @ y), 1 / precision.diagonal()


def batches(way: str, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices (chains, size), for ever."""
    order, passes = torch.empty(0), 0
    while True:
        if way == "independent":
            yield torch.randint(0, N, (CHAINS, size), generator=generator)
            continue
        if way != "there and back" or passes % 2 == 0:
            order = torch.rand(CHAINS, N, generator=generator).argsort(1)
        parts = order.split(size, 1)
        yield from reversed(parts) if way == "there and back" and passes % 2 else parts
        passes += 1


def measure(way: str, lr: float) -> dict[str, Any]:
    """Variances in ratio to the exact ones, and the kinetic temperature, of one way at one step."""
    x, y, mode, variance = problem()
    generator = torch.Generator().manual_seed(1)
    size = BATCH * 4 if way == "four times" else BATCH
    every = 2 if way == "control variate" else 1
    w = mode + variance.sqrt() * torch.randn(CHAINS, 2, generator=generator, dtype=torch.float64)
    unit = (2 * N * lr / (1 + MOMENTUM)) ** 0.5  # of the momentum
    buffer = torch.randn(CHAINS, 2, generator=generator, dtype=torch.float64) / unit
    squares, heat, count = torch.zeros(CHAINS, 2, dtype=torch.float64), 0.0, 0
    steps, settle = (passes * N // size // every for passes in (PASSES, SETTLE))
    for step, index in zip(range(steps), batches(way, size, generator), strict=False):
        features, targets = x[index], y[index]
        at = w - mode if way == "control variate" else w  # at the mode all gradients sum to zero
        residual = torch.einsum("cbd,cd->cb", features, at)
        residual = residual if way == "control variate" else residual - targets
        force = torch.einsum("cbd,cb->cd", features, residual) / size
        noise = torch.randn(CHAINS, 2, generator=generator, dtype=torch.float64)
        baoab(w, force, noise, buffer, lr=lr, momentum=MOMENTUM, temperature=1.0, num_data=N)
        if step >= settle:
            squares += (w - mode).square()
            heat += float((unit * buffer).square().mean())
            count += 1
    ratios = squares / count / variance
    error = ratios.std(0) / CHAINS**0.5
    names = ("stiff", "slow")
    return {
        "way": way,
        "step": lr,
        **{name: float(value) for name, value in zip(names, ratios.mean(0), strict=True)},
        **{f"{name} error": float(value) for name, value in zip(names, error, strict=True)},
        "kinetic temperature": heat / count,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows, as the page shows them."""
    header = ("step", "minibatches", "stiff: variance / exact", "slow: variance / exact", "kinetic temperature")
    lines = [
        (
            f"{row['step']:g}",
            row["way"],
            *(f"{row[name]:.3f} ± {2 * row[f'{name} error']:.3f}" for name in ("stiff", "slow")),
            f"{row['kinetic temperature']:.3f}",
        )
        for row in rows
    ]
    return format_rows(header, lines)


def main() -> None:
    """Measure all ways at all steps, and write both files."""
    rows = [measure(way, lr) for lr in STEPS for way in WAYS]
    HERE.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    HERE.with_suffix(".md").write_text(f"# Minibatch noise\n\n{(__doc__ or '').strip()}\n\n```\n{table(rows)}\n```\n")
    print(table(rows))


if __name__ == "__main__":
    main()
