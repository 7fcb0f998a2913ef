"""The ArviZ notebook: its cells run in order, on shorter chains, and it is kept with the outputs of a full run."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from sgmcmc_prune.chains import step_size

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "arviz.ipynb"
LENGTHS, SHORT = "burn_in=4000, cycles=1, explore=0, sample=40000", "burn_in=100, cycles=1, explore=0, sample=600"


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_with_its_outputs() -> None:
    numbers = [cell["execution_count"] for cell in cells()]
    assert numbers == list(range(1, len(numbers) + 1))
    kinds = [output["output_type"] for cell in cells() for output in cell["outputs"]]
    assert "error" not in kinds
    assert kinds.count("display_data") >= 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_its_cells_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import arviz

    if int(arviz.__version__.split(".")[0]) >= 1:
        pytest.skip("the notebook has the calls of ArviZ 0.23")
    monkeypatch.setattr(step_size, "FIT_STEPS", 400)
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    code = ["".join(cell["source"]) for cell in cells()]
    assert LENGTHS in code[0]
    names: dict[str, Any] = {}
    for text in code:
        exec(compile(text.replace(LENGTHS, SHORT), NOTEBOOK.name, "exec"), names)
    assert list(names["table"]["rank"]) == [0, 1, 2]
    plt.close("all")
