"""Regression on UCI sets: the sampled posterior, mean field, an ensemble and one network, at one budget of passes.

Every method trains an MLP with 50 tanh units on the standard splits, with a learned noise. It spends the same number of
gradient evaluations on a split: `--steps` full-batch steps of each of four chains or members, and of the single network
and of mean field all of them. Networks are trained by AdamW on nine tenths of the training set, and the step with the
best likelihood on the last tenth is taken: without that the learned noise collapses. The posterior is `sample` with its
defaults, at a fixed schedule; the trainings from which its chains start count at their full length, which they need
not take. Mean field is a normal factor for every
weight under the prior N(0, 1), trained on the evidence lower bound, which needs no early stopping, and 100 networks are
drawn from it; its settings are those of `jantre/uci.py`, and were not chosen here. Scores are RMSE and NLL in the units
of the data, and the share of test targets in their central 90 % interval.

    python -m experiments.ours.uci --data-dir UCI_Datasets --sets yacht concrete --splits 0 1 2 3 4 --jobs 2
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments import shared
from sgmcmc_prune import ScheduleConfig, models, sample
from sgmcmc_prune.baselines.training import Recipe, Trainer
from sgmcmc_prune.baselines.variational import LearnedGaussian, Settings, fit
from sgmcmc_prune.baselines.variational import mean_field as normal_factors
from sgmcmc_prune.cells import Records, product
from sgmcmc_prune.chains.step_size import FIT_STEPS
from sgmcmc_prune.data import load
from sgmcmc_prune.data.image_data import held_out
from sgmcmc_prune.likelihoods import Gaussian, Mixture, mean_nll
from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.predictive.predict import outputs_of, outputs_of_draws

SETS = ("yacht", "bostonHousing", "energy", "concrete", "wine-quality-red")
METHODS = ("posterior", "mean field", "ensemble", "single")
SCORES = ("rmse", "nll", "coverage")
WIDTH, MEMBERS = 50, 4
#: Outputs of every draw or network for the test set, and the largest R-hat of the chains' outputs for 64 examples.
Found = tuple[tuple[Tensor, ...], float | None]
#: How often a network is looked at for the step that is taken.
LOOKS = 100
#: Networks that are drawn from mean field.
DRAWS = 100


def network(inputs: int, seed: int) -> torch.nn.Module:
    """The MLP of every method."""
    return models.build("mlp", (inputs,), 1, seed=seed, widths=(WIDTH,), activation="tanh")


def run(set: str, split: int, method: str, steps: int, root: str) -> dict[str, Any]:
    """One method on one split: what is measured, JSON-ready."""
    data = load(f"uci:{set}", Path(root), targets="standardised", split=split)
    train, test = ((part.inputs(data.mean, data.std, "cpu"), part.labels) for part in (data.train, data.test))
    fits = {"posterior": posterior, "mean field": mean_field, "ensemble": ensemble, "single": single}
    outputs, rhat = fits[method](train, test, steps, split)
    return {**Gaussian().score(Mixture(outputs), test[1], data.unit), "passes": MEMBERS * steps, "rhat": rhat}


def posterior(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int, seed: int) -> Found:
    """Four chains and their largest R-hat: after the trainings that `sample` takes, a quarter is burn-in."""
    steps -= FIT_STEPS * (MEMBERS + 1) // MEMBERS
    schedule = ScheduleConfig(steps // 4, cycles=1, explore=0.0, sample=steps - steps // 4, relax=0.0, draws=100)
    width = train[0].shape[1]
    chains = sample(
        lambda: network(width, int(torch.randint(2**31, ()))),
        train,
        likelihood="gaussian",
        test=test,
        schedule=schedule,
        batch_size=len(train[1]),
        chains=MEMBERS,
        seed=seed,
        progress=False,
    )
    prediction = chains.predict(test[0]).prediction
    assert isinstance(prediction, Mixture)
    return prediction.each, chains.metrics["diagnostics"]["mean"]["rhat_max"]


def mean_field(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int, seed: int) -> Found:
    """Draws from independent normals, with the noise that maximises the bound, trained for the steps of all chains."""
    size, steps = len(train[1]), MEMBERS * steps
    settings = Settings(normal_factors(), steps, size, lr=1e-2, seed=seed, draws=DRAWS)
    fitted = fit(network(train[0].shape[1], seed), train, settings, LearnedGaussian(0.5))
    assert fitted.cost.gradient_evaluations == steps * size
    assert isinstance(fitted.likelihood, LearnedGaussian)
    means = outputs_of_draws(fitted.model, fitted.draws, test[0])
    log_noise = fitted.likelihood.log_std.detach().expand_as(means)
    return tuple(torch.cat([means, log_noise], 2)), None


def ensemble(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int, seed: int, members: int = MEMBERS
) -> Found:
    """Networks that AdamW has trained, each for as many steps as a chain, at their best looks."""
    held = held_out(len(train[1]), len(train[1]) // 10, seed)
    fitted, validation = ((train[0][part], train[1][part]) for part in (~held, held))
    outputs = []
    for member in range(members):
        model = Gaussian().completed(network(train[0].shape[1], 100 * seed + member), 1)
        recipe = Recipe("adamw", lr=1e-2, weight_decay=1e-2, steps=steps, batch_size=len(fitted[1]))
        trainer, best, found = Trainer.of_recipe(recipe, model, fitted, Gaussian(), seed), float("inf"), None
        for _ in range(LOOKS):
            trainer.run(steps // LOOKS)
            loss = float(mean_nll(Gaussian(), outputs_of(model, validation[0]), validation[1]))
            if loss < best:
                best, found = loss, outputs_of(model, test[0])
        assert found is not None, "a likelihood is finite"
        outputs.append(found)
    return tuple(outputs), None


def single(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int, seed: int) -> Found:
    """One network, trained for the steps of all chains."""
    return ensemble(train, test, MEMBERS * steps, seed, members=1)


def main(argv: list[str] | None = None) -> None:
    """Compute the cells that are missing; print and write the table."""
    parser = shared.parser(__doc__, (), __file__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=6000, help="of each chain")
    args = parser.parse_args(argv)
    grid = {"set": args.sets, "split": args.splits, "method": list(METHODS)}
    cells = product(run, grid, {"steps": args.steps}, {"root": str(args.data_dir)})
    found = shared.complete(Records(cells, args.out / "uci.json"), args.jobs, _line)
    rows = []
    for name in args.sets:
        for method in METHODS:
            each = [r for r in found if r["set"] == name and r["method"] == method and r["split"] in args.splits]
            means = [mean_and_half_width(np.array([r[score] for r in each])) for score in SCORES]
            rhat = "" if method != "posterior" else f"{max(r['rhat'] for r in each):.2f}"
            rows.append([name, method, str(len(each)), *(f"{mean:.3f} ± {half:.3f}" for mean, half in means), rhat])
    table = shared.markdown(("set", "method", "splits", "RMSE", "NLL", "in 90 % interval", "R-hat"), rows)
    (args.out / "uci.md").write_text(f"{TEXT}\n{table}\n", encoding="utf-8")
    print(table)


def _line(record: dict[str, Any]) -> str:
    return f"{record['set']} {record['split']} {record['method']}: RMSE {record['rmse']:.3f}, NLL {record['nll']:.3f}"


TEXT = """# UCI regression

An MLP with 50 tanh units and a learned noise, standard splits, full batches, the same passes for every method (counted
over chains and members). Means over splits with 95 % Student-t intervals; units of the data. Made by
`python -m experiments.ours.uci`.
"""


if __name__ == "__main__":
    main()
