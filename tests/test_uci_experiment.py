"""The UCI experiment on a toy set in the standard format: every method leaves its scores, and the table its rows."""

from pathlib import Path

import numpy as np
import pytest
from toy_uci import write_toy

from experiments.ours import uci


@pytest.mark.filterwarnings("ignore")
def test_every_method_is_scored_in_the_units_of_the_data(tmp_path: Path) -> None:
    write_toy(tmp_path)
    found = {m: uci.run("toy", 0, m, steps=200, root=str(tmp_path)) for m in uci.METHODS[1:]}
    assert {scores["passes"] for scores in found.values()} == {800}
    for scores in found.values():
        assert 1 < scores["rmse"] < 100  # the targets have a standard deviation of 100
        assert np.isfinite(scores["nll"])
