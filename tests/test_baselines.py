"""The dense baseline: SGD and AdamW with gradual magnitude pruning, in the shared row format."""

from typing import Literal

import pytest

from sgmcmc_prune.baselines.dense import train_and_prune
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import replace


@pytest.mark.parametrize(("optimizer", "cycles"), [("sgd", 1), ("adamw", 1), ("sgd", 2)])
def test_rows_reach_their_targets(optimizer: Literal["sgd", "adamw"], cycles: int) -> None:
    config: RunConfig = replace(
        PRESETS["demo"](),
        **{
            "data.validation": 6500,
            "data.batch_size": 50,
            "model.name": "linear",
            "schedule.burn_in": 2.0,
            "schedule.cycles": 1,
            "schedule.sample": 2.0,
            "prune.targets": (0.5, 0.9),
            "prune.sample": 1.0,
            "prune.cycles": cycles,
        },
    )
    result = train_and_prune(Run(config), optimizer, progress=False)
    assert result["dense"]["accuracy"] > 0.6
    assert [row["target"] for row in result["pruned"]] == [0.5, 0.9]
    for row in result["pruned"]:
        assert row["sparsity"] == pytest.approx(row["target"], abs=2e-4)
        assert row["members"] == 1
        assert row["accuracy"] > 0.5
