"""The loss budget: a probability with a known answer, the search, and what a run makes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from experiments.ours.loss_budget import CASES, promise
from sgmcmc_prune.posterior import open_posterior
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decisions import Evidence, LossBudget
from sgmcmc_prune.pruning.loss_budget import PROBABILITY, largest_within_loss, probability_within
from sgmcmc_prune.run.main import run
from tests.small_run import small

Mask = masks.Mask


def losses(*rises: float, spread: float = 1.0, examples: int = 100) -> tuple[Tensor, Tensor]:
    """Losses of one draw per rise, whose differences have that mean and that standard deviation to rounding."""
    dense = torch.linspace(0.1, 2, examples, dtype=torch.float64).repeat(len(rises), 1)
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(examples // 2)
    return dense, dense + torch.tensor(rises, dtype=torch.float64)[:, None] + spread * signs / signs.std()


def test_the_probability_is_the_mean_of_the_draws() -> None:
    """Each knows its rise to a hundredth of the spread's variance: standard error 0.1."""
    expected = (norm.cdf((0.2 - 0.1) / 0.1) + norm.cdf((0.2 - 0.35) / 0.1)) / 2
    assert probability_within(*losses(0.1, 0.35), 0.2) == pytest.approx(expected, abs=1e-12)


def test_equal_losses_are_certain_and_infinite_ones_hopeless() -> None:
    dense, _ = losses(0.0, 0.0)
    assert probability_within(dense, dense, 1e-9) == 1
    assert probability_within(dense, dense + 0.1, 0.05) == 0
    broken = dense.clone()
    broken[1, 3] = torch.inf
    assert probability_within(dense, broken, 1.0) == 0.5


def test_the_search_ends_at_the_first_mask_that_may_cost_too_much() -> None:
    """A sparser mask that would do again is not looked at."""
    asked = []

    def mask_at(sparsity: float) -> Mask:
        kept = torch.ones(1000, dtype=torch.bool)
        kept[: round(1000 * sparsity)] = False
        return {"w": kept}

    def at(mask: Mask) -> Tensor:
        sparsity = masks.sparsity(mask)
        asked.append(sparsity)
        return losses(0.5 if 0.4 < sparsity < 0.6 else 0.0, spread=1e-6)[1]

    assert masks.sparsity(largest_within_loss(at, mask_at, 0.1)) == pytest.approx(1 - 0.9**4, abs=1e-3)
    assert max(asked) == pytest.approx(1 - 0.9**5, abs=1e-3)


def test_the_decision_follows_the_scores() -> None:
    """The rise is half the square of what is removed: the three smallest of five weights are within 0.6."""
    w = torch.tensor([0.1, 3.0, 0.5, 1.0, 2.0], dtype=torch.float64)

    def at(mask: Mask) -> Tensor:
        removed = w[~mask["w"].flatten()].square().sum() / 2 if mask else torch.tensor(0.0)
        return losses(float(removed), spread=1e-9)[1]

    groups = {"w": GroupMap("weight", (5, 1))}
    found = LossBudget(0.65)(Evidence({"w": w.abs()}, {}, 0, at), groups)
    assert found["w"].flatten().tolist() == [False, True, False, False, True]
    with pytest.raises(ValueError, match="hold some out"):
        LossBudget(0.65)(Evidence({"w": w.abs()}, {}, 0), groups)


@pytest.mark.parametrize(
    ("dense", "pruned", "budget", "message"),
    [
        (torch.zeros(2, 9), torch.zeros(2, 9), 0.0, "loss budget is 0.0"),
        (torch.zeros(2, 9), torch.zeros(2, 9), float("nan"), "loss budget is nan"),
        (torch.zeros(2, 9), torch.zeros(3, 9), 0.1, r"\(2, 9\) and \(3, 9\)"),
        (torch.zeros(2, 1), torch.zeros(2, 1), 0.1, "two examples or more"),
        (torch.zeros(0, 9), torch.zeros(0, 9), 0.1, "two examples or more"),
        (torch.full((2, 9), torch.nan), torch.zeros(2, 9), 0.1, "has diverged"),
    ],
)
def test_bad_input_is_refused(dense: Tensor, pruned: Tensor, budget: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probability_within(dense, pruned, budget)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"prune.loss_budget": -1.0}, "prune.loss_budget is -1.0"), ({"data.validation": 0}, "needs held-out examples")],
)
def test_a_run_refuses_it_without_what_it_needs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**{"prune.decisions": ("loss_budget",), "evaluate": "test", **changes})


def test_a_run_decides_by_its_loss_budget(tmp_path: Path) -> None:
    """A wide budget prunes more than a narrow one, in a run and afterwards."""
    changes: dict[str, object] = {"prune.post_hoc": ("magnitude",), "prune.in_chain": (), "prune.targets": ()}
    config = small(**changes, **{"prune.decisions": ("loss_budget",), "prune.loss_budget": 0.003, "chains": 1})
    (row,) = run(config, tmp_path / "run", progress=False)["pruned"]
    assert (row["decision"], row["level"]) == ("loss_budget", 0.003)
    wide = replace(config.prune, loss_budget=0.3)
    found = open_posterior(tmp_path / "run").prune("loss_budget", criterion="magnitude", schedule=wide)
    assert 0 <= row["sparsity"] < found.sparsity < 1


@pytest.mark.slow
def test_the_promise_is_kept_over_data_sets() -> None:
    """The share of cases beyond the budget, with three standard errors: a false alarm in 0.002 of seeds at most."""
    result = promise("half of 20 features are idle", sets=200, seed=1)
    assert result["sets"] == 200
    assert result["beyond"] <= 1 - PROBABILITY + 3 * result["standard_error"]
    assert result["sparsity"] > 0.2


def test_the_record_keeps_the_promise() -> None:
    path = Path(__file__).resolve().parents[1] / "experiments" / "ours" / "results" / "loss_budget.json"
    results = json.loads(path.read_text())
    assert [result["case"] for result in results] == list(CASES)
    for result in results:
        assert result["sets"] >= 50
        assert result["beyond"] + result["half_width"] < 1 - PROBABILITY
