"""An evaluation that was stopped goes on with the next row, and processes share its rows."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_evaluate import QUICK

from sgmcmc_prune.run import decide, evaluate
from sgmcmc_prune.run.evaluate import Evaluator, tables
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.run.rows import Rows
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import read_json, write_json

#: Dense, two criteria at two targets and by one decision, and two targets in the chain.
CONFIG = replace(
    QUICK,
    **{
        "prune.targets": (0.5, 0.8),
        "prune.post_hoc": ("inclusion_probability", "magnitude"),
        "prune.decisions": ("median",),
        "control": "sgd",
    },
)
NUM_ROWS = 1 + 2 * 2 + 1 + 2 + 3


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows that are computed."""
    counted, predict = Counter[str](), Evaluator.predict

    def counting(self: Evaluator, *arguments: Any) -> Any:
        counted["rows"] += 1
        return predict(self, *arguments)

    monkeypatch.setattr(Evaluator, "predict", counting)
    return counted


def test_a_stopped_evaluation_goes_on(
    tmp_path: Path, predictions: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(CONFIG, tmp_path / "whole", progress=False)
    assert predictions["rows"] == NUM_ROWS
    assert not (tmp_path / "whole" / "rows").exists()

    def stopping(*arguments: Any, **labels: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "stage_row", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, tmp_path / "stopped", progress=False)
    predictions.clear()
    found = resume(tmp_path / "stopped", progress=False)
    assert predictions["rows"] == 2 + 3
    assert (found["dense"], found["pruned"]) == (whole["dense"], whole["pruned"])
    assert not (tmp_path / "stopped" / "rows").exists()


def test_processes_share_the_rows(tmp_path: Path, predictions: Counter[str]) -> None:
    whole = run(CONFIG, tmp_path / "run", progress=False)
    each = []
    for rank in (1, 2, 0):
        predictions.clear()
        tables(Run(CONFIG, tmp_path / "run"), False, rank, 3)
        each.append(predictions["rows"])
    assert sorted(each) == [3, 4, 4]
    predictions.clear()
    found = tables(Run(CONFIG, tmp_path / "run"), False)
    assert predictions["rows"] == 0
    assert all(found[part] == whole[part] for part in ("dense", "pruned", "control", "not_shrinkable"))


def test_masks_are_made_of_the_rows_that_a_process_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(CONFIG, tmp_path / "run", progress=False)
    made: list[int] = []

    def counting(*arguments: Any) -> Any:
        made.append(len(arguments[-1]))
        return decide.decided_post_hoc(*arguments)

    monkeypatch.setattr(evaluate, "decided_post_hoc", counting)
    for rank, size in ((1, 3), (2, 3), (0, 1)):
        tables(Run(CONFIG, tmp_path / "run"), False, rank, size)
    assert made == [2, 2, 1]  # of the five after the dense row, the third and then all that are left


def test_a_row_knows_its_name_and_its_draws(tmp_path: Path, predictions: Counter[str]) -> None:
    """Files exchanged or damaged, and draws that were written again, are computed again."""
    whole = run(CONFIG, tmp_path / "run", progress=False)
    for change, computed in (("exchange", 2), ("damage", 1), ("draws", NUM_ROWS)):
        tables(Run(CONFIG, tmp_path / "run"), False)
        rows = tmp_path / "run" / "rows"
        first, second = rows / "post_hoc0.json", rows / "post_hoc1.json"
        if change == "exchange":
            texts = first.read_text(), second.read_text()
            first.write_text(texts[1])
            second.write_text(texts[0])
        elif change == "damage":
            first.write_text(first.read_text()[:40])
        else:
            draw = next(path for path in (tmp_path / "run" / "draws").rglob("*") if path.is_file())
            draw.touch()
        predictions.clear()
        found = tables(Run(CONFIG, tmp_path / "run"), False)
        assert predictions["rows"] == computed, change
        assert (found["dense"], found["pruned"]) == (whole["dense"], whole["pruned"])


def test_rows_of_an_earlier_form_are_computed_again(tmp_path: Path, predictions: Counter[str]) -> None:
    """Rows of a release that kept no intervals do not say their form."""
    whole = run(CONFIG, tmp_path / "run", progress=False)
    tables(Run(CONFIG, tmp_path / "run"), False)
    kept = [*(tmp_path / "run" / "rows").glob("*.json")]
    assert len(kept) == NUM_ROWS
    for path in kept:
        content = read_json(path, checksum=True)
        for part, keys in (("about", ["form"]), ("row", ["each", "half_width"])):
            for key in keys:
                del content[part][key]
        write_json(path, {"about": content["about"], "row": content["row"]}, checksum=True)
    predictions.clear()
    found = tables(Run(CONFIG, tmp_path / "run"), False)
    assert predictions["rows"] == NUM_ROWS
    assert all(found[part] == whole[part] for part in ("dense", "pruned", "control"))


def test_rows_of_another_precision_are_computed_again(tmp_path: Path, predictions: Counter[str]) -> None:
    run(CONFIG, tmp_path / "run", progress=False)
    tables(Run(CONFIG, tmp_path / "run"), False)
    predictions.clear()
    tables(Run(replace(CONFIG, precision="bfloat16"), tmp_path / "run"), False)
    assert predictions["rows"] == NUM_ROWS


def test_rows_of_other_settings_are_computed_again(tmp_path: Path) -> None:
    first, other = Rows(tmp_path / "rows", {"evaluate": "test"}), Rows(tmp_path / "rows", {"evaluate": "validation"})
    assert first.take("dense", lambda: {"accuracy": 0.5, "nll": float("nan")})["accuracy"] == 0.5
    assert other.take("dense", lambda: {"accuracy": 0.25}) == {"accuracy": 0.25}
    again = Rows(tmp_path / "rows", {"evaluate": "validation"})
    assert again.take("dense", lambda: pytest.fail("it is kept")) == {"accuracy": 0.25}
