"""Is the promise of the decision `loss_budget` kept? Over data sets whose expected loss is known in closed form.

    python -m experiments.ours.loss_budget

y = x'w* + e with standard normal features and unit noise. The posterior under the prior N(0, 1) is exact, and so are
its 50 draws. The expected loss of weights w is |w - w*|^2 / 2 and a constant. Masks remove the weights with the
smallest signal-to-noise ratio. The decision tolerates a rise of 0.05 nats with probability 0.95: over data sets and
draws, at most a share of 0.05 may rise by more.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decisions import Evidence, LossBudget

DRAWS, BUDGET = 50, 0.05
RESULT = Path(__file__).parent / "results" / "loss_budget.json"


@dataclass(frozen=True)
class Case:
    """So many features, of which a share has no effect and the others effects of that deviation; so many examples."""

    features: int
    idle: float
    effect: float
    train: int
    held_out: int


CASES = {
    "half of 20 features are idle": Case(20, 0.5, 1.0, 60, 100),
    "60 small effects": Case(60, 0.0, 0.3, 200, 400),
    "100 smaller effects": Case(100, 0.0, 0.2, 300, 400),
}


def decide(case: Case, generator: torch.Generator) -> tuple[float, float]:
    """One data set: the share of draws whose expected loss rises by more than the budget, and the sparsity."""
    features, train = case.features, case.train
    effects = case.effect * torch.randn(features, generator=generator, dtype=torch.float64)
    effects[: round(case.idle * features)] = 0
    x = torch.randn(train + case.held_out, features, generator=generator, dtype=torch.float64)
    y = x @ effects + torch.randn(len(x), generator=generator, dtype=torch.float64)
    root = torch.linalg.cholesky(x[:train].T @ x[:train] + torch.eye(features, dtype=torch.float64))
    mean = torch.cholesky_solve((x[:train].T @ y[:train])[:, None], root)[:, 0]
    noise = torch.randn(features, DRAWS, generator=generator, dtype=torch.float64)
    draws = mean + torch.linalg.solve_triangular(root.T, noise, upper=True).T
    deviation = torch.cholesky_inverse(root).diagonal().sqrt()

    def under(mask: masks.Mask) -> Tensor:
        return draws * mask["w"].flatten() if mask else draws

    def losses(mask: masks.Mask) -> Tensor:
        return (y[train:] - under(mask) @ x[train:].T).square() / 2

    groups = {"w": GroupMap("weight", (features, 1))}
    mask = LossBudget(BUDGET)(Evidence({"w": mean.abs() / deviation}, {}, 0, losses), groups)
    rise = ((under(mask) - effects).square().sum(1) - (draws - effects).square().sum(1)) / 2
    return float((rise > BUDGET).double().mean()), masks.sparsity(mask)


def promise(case: str, sets: int = 400, seed: int = 0) -> dict[str, Any]:
    """Means over data sets: `beyond`, the share of cases above the budget, with its standard error, and `sparsity`."""
    generator = torch.Generator().manual_seed(seed)
    beyond, sparsity = torch.tensor([decide(CASES[case], generator) for _ in range(sets)], dtype=torch.float64).T
    return {
        "case": case,
        "sets": sets,
        "budget": BUDGET,
        "beyond": float(beyond.mean()),
        "standard_error": float(beyond.std() / sets**0.5),
        "half_width": float(mean_and_half_width(beyond.numpy())[1]),
        "sparsity": float(sparsity.mean()),
    }


if __name__ == "__main__":
    results = [promise(case) for case in CASES]
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    print(*results, sep="\n")
