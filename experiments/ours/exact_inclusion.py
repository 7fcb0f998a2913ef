"""Modes `marginal` and `gibbs` against enumeration on ten designs, and how far responsibilities of mode `em` are off.

    python -m experiments.ours.exact_inclusion --uci UCI_Datasets --seeds 0

Seven designs are public regression sets in the layout of the standard splits (`NAME/data/data.txt` beside
`index_features.txt` and `index_target.txt`), three are simulated. Features and target are standardised; the known noise
variance is the residual variance of least squares. The step-size bias is measured by a second run at twice the step.
A row passes if every |sampled - exact| <= 4 MCSE + 0.005 and MCSE <= 0.005.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import shared
from experiments.ours.exact_linear import MAX_RHAT, enumerated, read_table, sample_and_measure_bias, split_target
from experiments.ours.linear_chains import Ladder, Regression, sample
from sgmcmc_prune.cells import Records, product
from sgmcmc_prune.store.files import atomic_path, read_json, write_json

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
MODES = ("marginal", "gibbs", "em")
TOLERANCE, MAX_MCSE = 0.005, 0.005


def real(design: str, uci: str | None) -> Regression:
    """Build the regression of one public data set; ValueError without their folder."""
    if uci is None:
        raise ValueError(f"design {design} is read from UCI_Datasets; give its folder as --uci")
    folder, *hyperparameters = UCI[design]
    data = Path(uci) / folder / "data"
    table = read_table(data / "data.txt")
    features = [int(v) for v in read_table(data / "index_features.txt").values.flatten().tolist()]
    target = int(read_table(data / "index_target.txt").values[0, 0])
    chosen = table._replace(values=table.values[:, [*features, target]])
    return with_residual_variance(*split_target(chosen, "-1"), *hyperparameters)


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


def row(design: str, mode: str, seed: int, uci: str | None) -> dict[str, Any]:
    """One cell: how far a mode's averages are from enumeration on one design; in mode `em` the responsibilities."""
    problem = simulated(*SIMULATED[design]) if design in SIMULATED else real(design, uci)
    exact = enumerated(problem).inclusion_probability
    facts = {"n": len(problem.y), "p": problem.x.shape[1], "condition": condition_number(problem)}
    if mode == "em":
        responsibility = sample(Ladder(problem, "em", seed=seed), 1.0, 0.0).inclusion_probability
        values = {"exact": exact.tolist(), "responsibility": responsibility.tolist()}
        return facts | {"max_error": float((responsibility - exact).abs().max()), **values}
    started = time.process_time()
    sampled, difference = sample_and_measure_bias(problem, mode, seed)  # type: ignore[arg-type]
    error, mcse = (sampled.inclusion_probability - exact).abs(), float(sampled.mcse.max())
    passed = bool((error <= 4 * sampled.mcse + TOLERANCE).all()) and mcse <= MAX_MCSE and sampled.rhat <= MAX_RHAT
    return facts | {
        "max_error": float(error.max()),
        "mcse": mcse,
        "at_twice_the_step": float(difference.abs().max()),
        "rhat": sampled.rhat,
        "pass": passed,
        "cpu_seconds": time.process_time() - started,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file; the seed stood beside the rows once."""
    file = read_json(path)
    return [{"seed": file.get("seed"), **found} for found in file["rows"]]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out in Markdown."""
    lines = [
        "| design | n | p | condition | mode | max error | MCSE | at twice the step | R-hat | CPU s | pass |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    several = len({r["seed"] for r in rows}) > 1
    for r in rows:
        name = f"{r['design']}, seed {r['seed']}" if several else r["design"]
        start = f"| {name} | {r['n']} | {r['p']} | {r['condition']:.2g} | {r['mode']} | {r['max_error']:.4f} |"
        if r["mode"] == "em":
            lines.append(f"{start} - | - | - | - | not a posterior probability |")
        else:
            end = f" {r['mcse']:.4f} | {r['at_twice_the_step']:.4f} | {r['rhat']:.3f} | {r['cpu_seconds']:.0f} |"
            lines.append(f"{start}{end} {'yes' if r['pass'] else 'NO'} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the rows that are missing, then write the table of all that are stored."""
    parser = shared.parser(__doc__, (0,), __file__)
    parser.add_argument("--uci", type=Path, help="folder UCI_Datasets; without it only the simulated designs run")
    parser.add_argument("--designs", nargs="+", choices=[*UCI, *SIMULATED], help="by default all that can run")
    a = parser.parse_args(argv)
    axes = {"design": a.designs or [*(UCI if a.uci else ()), *SIMULATED], "mode": MODES, "seed": a.seeds}
    cells = product(row, axes, places={"uci": str(a.uci) if a.uci else None})
    grid = Records(cells, a.out / "exact_inclusion.json", read, lambda path, rows: write_json(path, {"rows": rows}))
    found = shared.complete(grid, a.jobs, threads=1)
    text = table(grid.all)
    with atomic_path(a.out / "exact_inclusion.md") as partial:
        partial.write_text(f"{TITLE}\n{text}\n", encoding="utf-8")
    print(text)
    return 0 if all(r.get("pass", True) for r in found) else 1


if __name__ == "__main__":
    sys.exit(main())
