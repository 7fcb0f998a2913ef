"""BatchNorm's statistics are re-estimated from inputs as training saw them: augmented pictures, not plain ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.run.data import Data, load_data
from sgmcmc_prune.run.presets import demo
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import replace


def bright(part: tuple[Tensor, Tensor], low: float) -> tuple[Tensor, Tensor]:
    """Inverted pictures, so that black borders are unlike what they border."""
    return low - part[0], part[1]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10),
    )  # fmt: skip


def problem(**changes: Any) -> Run:
    config = replace(demo(), **{"data.augmentation": "crop_flip", "data.batch_size": 100, **changes})
    data = load_data(config)
    mean, std = data.dataset.mean[0], data.dataset.std[0]
    low = (1 - mean) / std - mean / std  # x -> 1 - x in the units of the network
    parts = [bright(part, low) for part in (data.train, data.validation, data.test)]
    return Run(config, data=Data(data.dataset, *parts))


def train(model: nn.Module, stream: Any, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        inputs, labels = stream.batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def test_reestimated_and_running_statistics_agree_where_training_was_augmented() -> None:
    """Crops with black borders; the weights stand still at the end, so that running statistics belong to them."""
    run, model = problem(), network()
    train(model, run.stream(0), 240)
    inputs, labels = run.data.test

    def accuracy(network: nn.Module) -> float:
        return float((class_probabilities(network, inputs).argmax(1) == labels).double().mean())

    with torch.no_grad():  # what training leaves behind, at the last weights
        stream = run.stream(1)
        for step in range(100):
            model(stream.batch(step)[0])
    again = masked_network(model, model.state_dict(), {}, run.statistics_batches())
    without = Run(replace(run.config, **{"data.augmentation": "none"}), data=run.data)
    plain = masked_network(model, model.state_dict(), {}, without.statistics_batches())
    assert accuracy(model) > 0.6
    # 2,000 test pictures: where networks disagree on few, a difference of 0.015 is over three standard errors.
    assert accuracy(again) == pytest.approx(accuracy(model), abs=0.015)
    distance = {
        name: float((other[1].running_mean - model[1].running_mean).abs().max())  # type: ignore[index]
        for name, other in {"augmented": again, "plain": plain}.items()
    }
    assert distance["augmented"] < 0.2 * distance["plain"]


def test_statistics_come_from_batches_of_their_own_key_and_are_made_when_asked(tmp_path: Path) -> None:
    run = problem()
    batches = run.statistics_batches()()
    assert [len(batch) for batch in batches] == [250] * 8
    assert all(torch.equal(a, b) for a, b in zip(batches, run.statistics_batches()(), strict=True))
    first = run.stream(0, 250).batch(0)[0]
    assert not torch.equal(first, batches[0])

    def refuse() -> list[Tensor]:
        raise AssertionError("a network without batch normalisation needs no statistics")

    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    masked_network(linear, linear.state_dict(), {}, refuse)
