"""Pruning by joint evidence: exact where the posterior is Gaussian, stage by stage, and from a run's draws."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods import gaussian
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.posterior import open_posterior
from sgmcmc_prune.priors import Gaussian, SpikeSlab
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.conditional.curvature import Ggn
from sgmcmc_prune.pruning.conditional.prune import (
    Conditional,
    Pruned,
    Weights,
    by_evidence,
    follow,
    given,
    path,
    precision_of,
)
from sgmcmc_prune.run.main import run
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.weights import WeightStore
from tests.small_run import small

VARIANCE, NOISE = 2.0, 0.5


def regression(features: int = 8) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model without a bias at the mode of its posterior, on correlated features."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, features, generator=generator, dtype=torch.float64)
    x[:, 1] += x[:, 0]
    y = x @ torch.linspace(1, 0, features, dtype=torch.float64) + torch.randn(40, generator=generator).double()
    model = nn.Linear(features, 1, bias=False).double()
    model.weight.data = ridge(x, y, torch.ones(features, dtype=torch.bool))[None]
    return model, x, y[:, None]


def ridge(x: Tensor, y: Tensor, kept: Tensor) -> Tensor:
    """The mode of the posterior of a model with some of the features; zero elsewhere."""
    found = torch.zeros(x.shape[1], dtype=torch.float64)
    some = x[:, kept]
    precision = some.T @ some / NOISE + torch.eye(some.shape[1], dtype=torch.float64) / VARIANCE
    found[kept] = torch.linalg.solve(precision, some.T @ y.flatten() / NOISE)
    return found


def flat(weights: Weights) -> Weights:
    return precision_of(Gaussian(VARIANCE), weights)


def pruned(choose: list, curvature: str = "ggn", **options: int) -> list[Pruned]:  # type: ignore[type-arg]
    model, x, y = regression()
    found = follow(
        *(model, [network_state(model)], lambda stage, count: (x, y), flat, choose),
        Conditional(curvature, options, len(choose)),
        likelihood=gaussian(NOISE),
        num_data=len(x),
    )
    return list(found)


@pytest.mark.parametrize(("curvature", "options"), [("ggn", {}), ("kfac", {}), ("ggn", {"size": 8})])
def test_a_linear_model_is_moved_to_the_mode_of_the_smaller_model(curvature: str, options: dict[str, int]) -> None:
    """In one stage or in three: every stage keeps a mode of what is left."""
    _, x, y = regression()
    (once,) = pruned([by_evidence(0.5)], curvature, **options)
    kept = once.mask["weight"][0]
    assert masks.sparsity(once.mask) == 0.5
    torch.testing.assert_close(once.draws[0]["weight"][0], ridge(x, y, kept), rtol=1e-10, atol=1e-10)
    *_, last = pruned([by_evidence(s) for s in (0.25, 0.375, 0.5)], curvature, **options)
    assert torch.equal(last.mask["weight"][0], kept)
    torch.testing.assert_close(last.draws[0]["weight"], once.draws[0]["weight"], rtol=1e-10, atol=1e-10)


def test_a_given_mask_is_kept_and_the_rest_moved() -> None:
    _, x, y = regression()
    mask = torch.tensor([[True, True, False, True, False, True, True, False]])
    (found,) = pruned([given({"weight": mask})])
    torch.testing.assert_close(found.draws[0]["weight"][0], ridge(x, y, mask[0]), rtol=1e-10, atol=1e-10)


def test_curvature_of_examples_counts_each_stage() -> None:
    assert [stage.examples for stage in pruned([by_evidence(0.25), by_evidence(0.5)])] == [40, 80]


def test_a_bias_moves_and_is_never_removed() -> None:
    """An input that never varies is the bias's twin: once it is gone, the bias has taken all of it over."""
    model = nn.Linear(2, 1).double()
    model.weight.data, model.bias.data = torch.tensor([[1.0, 0.5]]).double(), torch.tensor([0.0]).double()
    x = torch.stack([torch.ones(20), torch.linspace(-1, 1, 20)], 1).double()
    (found,) = follow(
        *(model, [network_state(model)], lambda stage, count: (x, model(x).detach()), flat, [by_evidence(0.5)]),
        Conditional(),
        likelihood=gaussian(1e-6),
        num_data=20,
    )
    assert found.mask["weight"].tolist() == [[False, True]]
    assert found.draws[0]["bias"].item() == pytest.approx(1.0, abs=1e-5)


def test_a_frozen_bias_stays() -> None:
    model = nn.Linear(3, 2).double()
    model.bias.requires_grad_(False)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 1
    (found,) = follow(
        *(model, [network_state(model)], lambda stage, count: (x, x[:, :2]), flat, [by_evidence(0.5)], Conditional()),
        likelihood=gaussian(NOISE),
        num_data=20,
    )
    assert torch.equal(found.draws[0]["bias"], model.bias)
    assert not torch.equal(found.draws[0]["weight"], model.weight * found.mask["weight"])


def test_normalisation_gets_statistics_of_the_moved_draws() -> None:
    """A network with BatchNorm: without inputs for its statistics it is refused, with them it is pruned."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 1)).double()
    x = torch.randn(30, 1, 5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def stages(**statistics: Any) -> list[Pruned]:
        found = follow(
            *(model, [network_state(model)], lambda stage, count: (x, x[:, 0, 0, :1]), flat),
            *([by_evidence(0.3), by_evidence(0.6)], Conditional("kfac")),
            likelihood=gaussian(NOISE),
            num_data=30,
            **statistics,
        )
        return list(found)

    with pytest.raises(ValueError, match="no batch to re-estimate BatchNorm from"):
        stages()
    (_, last) = stages(statistics=lambda: [x])
    assert masks.sparsity(last.mask) == pytest.approx(0.6, abs=0.02)
    assert last.mask.keys() == {"0.weight", "4.weight"}


def test_a_path_passes_every_target_at_about_equal_ratios() -> None:
    way = path([0.8, 0.9, 0.98], 12)
    assert len(way) == 12
    assert {0.8, 0.9, 0.98} <= set(way)
    density = [1.0, *(1 - s for s in way)]
    ratios = [b / a for a, b in itertools.pairwise(density)]
    assert max(ratios) < 1
    assert max(ratios) - min(ratios) < 0.08
    assert path([0.8, 0.9], 1) == [0.8, 0.9]


def test_the_prior_of_a_mixture_has_its_expected_precision() -> None:
    w = {"w": torch.tensor([[0.0, 0.05, 2.0]], dtype=torch.float64)}
    prior = SpikeSlab(w, inclusion_rate=0.3, spike_variance=0.01, slab_variance=1.0, seed=0)
    p_slab = prior.log_odds("w", w["w"]).sigmoid().view(1, 3)
    torch.testing.assert_close(precision_of(prior, w)["w"], p_slab / 1.0 + (1 - p_slab) / 0.01, rtol=1e-6, atol=0)


def test_a_run_prunes_its_draws_by_joint_evidence(tmp_path: Path) -> None:
    """Each draw is under the mask of its chain and was moved; the posterior object gives the same."""
    changes: dict[str, object] = {"prune.post_hoc": ("magnitude", "conditional"), "prune.in_chain": ()}
    changes |= {"prune.decisions": ()}
    changes |= {"model.name": f"{__name__}:coarse", "prune.stages": 2, "chains": 2}
    config = small(**changes)
    metrics = run(config, tmp_path / "run", progress=False)
    rows = {(row["criterion"], row["target"]): row for row in metrics["pruned"]}
    assert rows["conditional", 0.8]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert rows["conditional", 0.8]["members"] == rows["magnitude", 0.8]["members"] == 16
    posterior = open_posterior(tmp_path / "run")
    found = posterior.prune(0.8, criterion="conditional")
    assert found.sparsity == pytest.approx(0.8, abs=1e-3)
    dense, moved = posterior.draws[9], found.draws[9]
    kept = found.masks[1]
    assert all(bool((moved[name][~mask] == 0).all()) for name, mask in kept.items())
    assert all(not torch.equal(moved[name][mask], dense[name][mask]) for name, mask in kept.items())
    stored = WeightStore(tmp_path / "run" / "forks" / "conditional" / "draws")
    assert stored.count(1) == 16
    odds = posterior.log_odds(chain=1)["2.weight"]
    assert odds.shape == (8, 490)
    averaged = posterior.inclusion()["2.weight"].probability[1]
    torch.testing.assert_close(odds.sigmoid().mean(0), averaged, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="takes a sparsity, not decision 'median'"):
        posterior.prune("median", criterion="conditional")
    assert read_json(tmp_path / "run" / "metrics.json", checksum=True)["evaluation"]["prune.stages"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune.in_chain": ("conditional",)}, "conditional moves finished draws"),
        ({"model.name": f"{__name__}:gated"}, "'gate' belongs to no layer"),
        ({"prune.curvature_options": ("size=-1", "speed=3")}, "no option 'speed'"),
        ({"prune.curvature": f"{__name__}:Broken"}, "your curvature .*Broken fails: RuntimeError: no such thing"),
        ({"prune.stages": 0}, "prune.stages is 0"),
        ({"prune.curvature": "hessian"}, "choose one of gram, kfac"),
    ],
)
def test_what_cannot_be_is_refused_before_a_directory_is_made(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        run(small(**{"prune.in_chain": (), "prune.post_hoc": ("conditional",), **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def coarse(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Images of 7 x 7 pixels: a quick curvature."""
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, num_classes))


class _Gate(nn.Module):
    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(size, classes) / 28)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.gate


def gated(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return _Gate(784, num_classes)


class Broken(Ggn):
    """A curvature of one's own that fails."""

    def add(self, a: Tensor, g: Tensor | None) -> None:
        raise RuntimeError("no such thing")
