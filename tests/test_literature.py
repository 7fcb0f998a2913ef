"""The experiments after published papers: every cell is a valid run, and every published figure has its sparsity."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from sgmcmc_prune.run.schedules import dense_schedule, fork_schedule

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = (
    "ke_fan.cifar10",
    "ke_fan.cifar100",
    "ke_fan.imagenet",
    "sun_deng.deng_resnet20",
    "sun_deng.sun_resnet",
    "zhang.csgmcmc_resnet18",
    "wenzel_izmailov.cold_posterior",
    "wenzel_izmailov.resnet20_frn",
)
NUM_DATA = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}


@pytest.fixture(params=EXPERIMENTS)
def script(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def experiment(script: str) -> Any:
    return importlib.import_module(f"experiments.{script}").EXPERIMENT


@pytest.mark.parametrize("budget", ["desk", "paper"])
def test_every_cell_has_a_schedule(experiment: Any, budget: str) -> None:
    for variant in experiment.variants:
        config = experiment.config(variant, budget, seed=3)
        assert (config.seed, config.preset) == (3, experiment.name)
        assert (config.chains, config.execution) == ((2, "processes") if budget == "desk" else (1, "loop"))
        steps_per_epoch = (NUM_DATA[config.data.name] - config.data.validation) / config.data.batch_size
        epochs = dense_schedule(config, steps_per_epoch).num_steps / steps_per_epoch
        assert epochs == pytest.approx(24, rel=0.01) if budget == "desk" else 89 < epochs <= 10_000
        assert fork_schedule(config, steps_per_epoch).num_steps > 0


def test_published_figures_can_be_drawn(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "analysis"))
    literature = importlib.import_module("against_the_literature")
    for points in literature.published(script.replace(".", "/")).values():
        assert all(0 <= sparsity < 100 and 50 < accuracy < 100 for sparsity, accuracy in points)
