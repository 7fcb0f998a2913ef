"""The benchmark of the data paths runs on small pictures; how fast anything is, is not tested."""

import pytest

from sgmcmc_prune.bench import data


def test_both_paths_are_measured_beside_the_network() -> None:
    pytest.importorskip("PIL.Image")
    result = data.bench_data("resnet20", rounds=2, batch_size=8, size=32, pictures=16, workers=1, progress=False)
    assert [(row["path"], row["pixels"]) for row in result["rows"]] == [("memory", 32), ("shards", 28)]
    assert all(row["ratio"] == row["delivered"] / row["needed"] > 0 for row in result["rows"])
    assert len(data.table(result).splitlines()) == 4
