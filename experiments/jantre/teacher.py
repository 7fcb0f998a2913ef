"""How many nodes does SS-IG keep of 20, when the teacher has 2, and how much does the gates' start decide?

    python -m experiments.jantre.teacher --seeds 0 1 2 3 4    (writes results/jantre_teacher.json)

Data: `sgmcmc_prune.data.selection.teacher`, n = 2000, 5 % noise; student 2-20-1 with sigmoid nodes, slab N(0, 3^2),
learned noise, Adam 3e-2 (gates 0.3) on a cosine. Two starts: gates at 0.1 under lambda = 1e-3, and at 0.99 under
lambda = 0.01.

Gradients decide the gates early and for good: two nodes that share one teacher node do not merge, though the bound
would rise. So each fit is also followed by elimination: leave out one kept node (the least in influence first), refit
from the weights of the others, accept if the bound rises, until no node can go.

Measured with the command above, seeds 0 to 4. Nodes kept by gradients alone: 2, 3, 3, 2, 3 from the low start, 3, 4,
6, 4, 5 from the high one (with 2,500 steps 2, 4, 4, 2, 3 and, before, 7 to 11: the longer the training, the fewer).
After elimination: 2 in all ten fits, with a bound 21 to 111 nats higher where nodes went, and from either start within
5 nats. RMSE of the pruned network over the noise: 0.99 to 1.02 in all fits, before and after, so that the error cannot
tell them apart; the bound can. The pilots (20,000 steps, another implementation) kept 2, 3, 2, 2, 2 and 10 to 13.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from experiments import shared
from sgmcmc_prune.baselines.variational import LearnedGaussian, Settings, VariationalFit, fit, predictors, ss_ig
from sgmcmc_prune.cells import Records, product
from sgmcmc_prune.data.selection import teacher
from sgmcmc_prune.pruning.shrink import shrink

STARTS = {"low": {"start": 0.1, "inclusion": 1e-3}, "high": {"start": 0.99, "inclusion": 0.01}}


class Student(nn.Module):
    """One hidden layer of sigmoid nodes."""

    def __init__(self, nodes: int = 20) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, nodes)
        self.output = nn.Linear(nodes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (n, 2) to outputs (n, 1)."""
        return self.output(self.hidden(x).sigmoid())


def train(
    student: nn.Module, data: tuple[Tensor, Tensor], start: dict[str, float], steps: int, seed: int
) -> VariationalFit:
    """Fit SS-IG to a student; `start` holds the family's `start` and `inclusion`."""
    family = ss_ig(prior_std=3.0, **start)
    settings = Settings(family, steps, 500, lr=3e-2, gate_lr=0.3, seed=seed, on_empty="warn")
    return fit(student, data, settings, LearnedGaussian())


def without(student: nn.Module, node: int, example: Tensor) -> nn.Module:
    """A student with one hidden node less, which will be trained."""
    smaller = copy.deepcopy(student)
    with torch.no_grad():
        smaller.output.weight[:, node] = 0
    return shrink(smaller, {}, example, trains=True).model


def eliminate(
    fitted: VariationalFit, data: tuple[Tensor, Tensor], start: dict[str, float], steps: int, seed: int
) -> VariationalFit:
    """Leave nodes out one by one as long as the evidence bound rises, by two standard errors."""
    student: Any = shrink(fitted.pruned().model, {}, data[0][:2]).model
    with torch.no_grad():
        influence = student.hidden(data[0]).sigmoid().std(0) * student.output.weight[0].abs()
    for node in influence.argsort().tolist() if len(influence) > 1 else []:
        smaller = train(without(student, node, data[0][:2]), data, {**start, "start": 0.9}, steps, seed)
        if smaller.bound - fitted.bound > 2 * math.hypot(smaller.bound_error, fitted.bound_error):
            return eliminate(smaller, data, start, steps, seed)
    return fitted


def run(seed: int, start: str, steps: int, refit: int) -> dict[str, Any]:
    """One data set and one start: what is measured, JSON-ready."""
    inputs, targets, noise = teacher(2000, seed)
    test, test_targets, _ = teacher(2000, seed, "test")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = Student()
    data = (inputs, targets)
    fitted = train(student, data, STARTS[start], steps, seed)
    expected, count, drawn = fitted.kept_groups(seed)["hidden.weight"]
    final = eliminate(fitted, data, STARTS[start], refit, seed) if refit else fitted

    def errors(fit_: VariationalFit) -> dict[str, float]:
        residuals = {how: each.predict(test).flatten() - test_targets for how, each in predictors(fit_).items()}
        return {how: float(r.square().mean().sqrt()) / noise for how, r in residuals.items()}

    return {
        "kept": count,
        "kept_expected": expected,
        "kept_in_one_draw": drawn,
        "inclusion": sorted(fitted.inclusion()["hidden.weight"].tolist(), reverse=True),
        "rmse_over_noise": errors(fitted),
        "bound": fitted.bound,
        "bound_error": fitted.bound_error,
        "kept_after_elimination": int((final.inclusion()["hidden.weight"] > 0.5).sum()),
        "bound_after_elimination": final.bound,
        "rmse_over_noise_after_elimination": errors(final),
        "learned_noise": float(fitted.likelihood.log_std.detach().exp()) / noise,
        "seconds": fitted.cost.seconds,
        "trace": fitted.history[:: max(1, len(fitted.history) // 50)],
    }


def main(argv: list[str] | None = None) -> None:
    """Run both starts on every seed; print and write the results."""
    parser = shared.parser(__doc__, range(5), __file__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--refit", type=int, default=1200, help="steps of each refit; 0: no elimination")
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS))
    args = parser.parse_args(argv)
    cells = product(run, {"start": args.starts, "seed": args.seeds}, {"steps": args.steps, "refit": args.refit})
    shared.complete(Records(cells, args.out / "jantre_teacher.json"), args.jobs, _line)


def _line(r: dict[str, Any]) -> str:
    before, after = r["rmse_over_noise"], r["rmse_over_noise_after_elimination"]
    return (
        f"start {r['start']}, seed {r['seed']}: kept {r['kept']} (expected {r['kept_expected']:.1f}), bound "
        f"{r['bound']:.0f}; after elimination {r['kept_after_elimination']}, bound {r['bound_after_elimination']:.0f}; "
        f"RMSE / noise of the pruned network {before['median_mean']:.3f}, {after['median_mean']:.3f}"
    )


if __name__ == "__main__":
    main()
