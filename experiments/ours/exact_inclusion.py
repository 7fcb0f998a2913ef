"""Modes `marginal` and `gibbs` against enumeration on ten designs, and how far responsibilities of mode `em` are off.

    python -m experiments.ours.exact_inclusion --uci UCI_Datasets --out benchmarks

Seven designs are public regression sets in the layout of the standard splits (`NAME/data/data.txt` beside
`index_features.txt` and `index_target.txt`), three are simulated. Features and target are standardised; the known noise
variance is the residual variance of least squares. The step-size bias is measured by a second run at twice the step.
A row passes if every |sampled - exact| <= 4 MCSE + 0.005 and MCSE <= 0.005.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.ours.exact_linear import MAX_RHAT, enumerated, read_table, sample_and_measure_bias, split_target
from experiments.ours.linear_chains import Ladder, Regression, sample
from sgmcmc_prune.store.files import atomic_path, write_json

RESULTS = Path(__file__).parent / "results"
UCI = {
    "boston": ("bostonHousing", 1e-3, 0.5, 0.3),
    "concrete": ("concrete", 1e-3, 0.5, 0.3),
    "energy": ("energy", 1e-3, 0.5, 0.3),
    "kin8nm": ("kin8nm", 1e-4, 0.5, 0.3),
    "power": ("power-plant", 1e-4, 0.5, 0.3),
    "wine": ("wine-quality-red", 1e-3, 0.5, 0.3),
    "yacht": ("yacht", 1e-3, 0.5, 0.3),
}
#: Correlation between neighbours, number of examples and of features.
SIMULATED = {"independent": (0.0, 60, 10), "ar(0.9)": (0.9, 100, 10), "ar(0.98)": (0.98, 100, 12)}
TITLE = """# Inclusion probabilities against the enumeration of all models

    python -m experiments.ours.exact_inclusion --uci DIR

`at twice the step` is the difference to a run at twice the step: an upper estimate of the step-size bias.
"""
TOLERANCE, MAX_MCSE = 0.005, 0.005


def real(folder: Path, spike: float, slab: float, rate: float) -> Regression:
    """Build the regression of one public data set."""
    data = folder / "data"
    table = read_table(data / "data.txt")
    features = [int(v) for v in read_table(data / "index_features.txt").values.flatten().tolist()]
    target = int(read_table(data / "index_target.txt").values[0, 0])
    chosen = table._replace(values=table.values[:, [*features, target]])
    return with_residual_variance(*split_target(chosen, "-1"), spike, slab, rate)


def simulated(correlation: float, num_data: int, num_features: int, seed: int = 0) -> Regression:
    """Gaussian features with correlation rho^|i - j|; every third weight is not zero, and they shrink."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_data, num_features, generator=generator, dtype=torch.float64)
    for j in range(1, num_features):
        x[:, j] = correlation * x[:, j - 1] + (1 - correlation**2) ** 0.5 * x[:, j]
    w = torch.zeros(num_features, dtype=torch.float64)
    w[::3] = torch.linspace(1.0, 0.25, len(w[::3]), dtype=torch.float64)
    y = x @ w + torch.randn(num_data, generator=generator, dtype=torch.float64)
    x, y = (x - x.mean(0)) / x.std(0, correction=0), (y - y.mean()) / y.std(correction=0)
    return with_residual_variance(x, y, 1e-3, 0.5, 0.3)


def with_residual_variance(x: Tensor, y: Tensor, spike: float, slab: float, rate: float) -> Regression:
    """The regression whose known noise variance is that of the least-squares residuals."""
    residual = y - x @ torch.linalg.pinv(x) @ y
    return Regression(x, y, float(residual.var()), spike, slab, rate)


def condition_number(problem: Regression) -> float:
    """Largest over smallest eigenvalue of X'X / s^2 + I / v1: the posterior precision of the full model."""
    gram = problem.x.T @ problem.x / problem.noise_variance
    eigenvalues = torch.linalg.eigvalsh(gram) + 1 / problem.slab_variance
    return float(eigenvalues[-1] / eigenvalues[0])


def compare(name: str, problem: Regression, seed: int) -> list[dict[str, Any]]:
    """One row per exact mode, and one for the responsibilities of mode `em`."""
    exact = enumerated(problem).inclusion_probability
    facts = {"design": name, "n": len(problem.y), "p": problem.x.shape[1], "condition": condition_number(problem)}
    rows = []
    for mode in ("marginal", "gibbs"):
        started = time.process_time()
        sampled, difference = sample_and_measure_bias(problem, mode, seed)  # type: ignore[arg-type]
        error = (sampled.inclusion_probability - exact).abs()
        passed = bool((error <= 4 * sampled.mcse + TOLERANCE).all()) and float(sampled.mcse.max()) <= MAX_MCSE
        rows.append(
            facts
            | {
                "mode": mode,
                "max_error": float(error.max()),
                "mcse": float(sampled.mcse.max()),
                "at_twice_the_step": float(difference.abs().max()),
                "rhat": sampled.rhat,
                "pass": passed and sampled.rhat <= MAX_RHAT,
                "cpu_seconds": time.process_time() - started,
            }
        )
    responsibility = sample(Ladder(problem, "em", seed=seed), 1.0, 0.0).inclusion_probability
    bias = (responsibility - exact).abs().max()
    values = {"exact": exact.tolist(), "responsibility": responsibility.tolist()}
    return [*rows, facts | {"mode": "em", "max_error": float(bias), **values}]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out in Markdown."""
    lines = [
        "| design | n | p | condition | mode | max error | MCSE | at twice the step | R-hat | CPU s | pass |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        start = f"| {r['design']} | {r['n']} | {r['p']} | {r['condition']:.2g} | {r['mode']} | {r['max_error']:.4f} |"
        if r["mode"] == "em":
            lines.append(f"{start} - | - | - | - | not a posterior probability |")
        else:
            end = f" {r['mcse']:.4f} | {r['at_twice_the_step']:.4f} | {r['rhat']:.3f} | {r['cpu_seconds']:.0f} |"
            lines.append(f"{start}{end} {'yes' if r['pass'] else 'NO'} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the designs; write JSON and Markdown after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uci", type=Path, help="folder UCI_Datasets; without it only the simulated designs run")
    parser.add_argument("--designs", nargs="*", default=[*UCI, *SIMULATED], choices=[*UCI, *SIMULATED])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of exact_inclusion.json and .md")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in options.designs:
        if name in SIMULATED:
            problem = simulated(*SIMULATED[name])
        elif options.uci is not None:
            folder, *hyperparameters = UCI[name]
            problem = real(options.uci / folder, *hyperparameters)
        else:
            continue
        rows += compare(name, problem, options.seed)
        print(table(rows[-3:]), flush=True)
        write_json(options.out / "exact_inclusion.json", {"seed": options.seed, "rows": rows})
        with atomic_path(options.out / "exact_inclusion.md") as partial:
            partial.write_text(f"{TITLE}\n{table(rows)}\n", encoding="utf-8")
    return 0 if all(r.get("pass", True) for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
