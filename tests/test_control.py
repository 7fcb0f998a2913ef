"""The control of a run: networks by SGD at the gradient evaluations of its chains, in its table, resumable like it."""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_run import assert_same_run, new_run, small

from sgmcmc_prune.baselines.dense import DenseThenGradual
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.machine.distributed import Ranks
from sgmcmc_prune.report.page import page
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.sparsity import quality_against_sparsity
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.main import _check_processes, resume, run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.tables import control_lines, metrics_table


def controlled(**changes: object) -> RunConfig:
    """Two short chains with one fork, and their control."""
    settings: dict[str, object] = {
        "control": "sgd",
        "schedule.burn_in": 3.0,
        "schedule.cycles": 1,
        "prune.in_chain": ("magnitude",),
        "prune.post_hoc": ("magnitude",),
        "prune.decisions": (),
        "checkpoint_seconds": 0.0,
    }
    return small(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("control") / "out"
    run(controlled(), out, progress=False)
    return out


def read(out: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize(("targets", "said"), [((), "dense alone"), ((0.5,), "by gradual magnitude pruning")])
def test_the_line_about_the_control_says_whether_it_was_pruned(targets: tuple[float, ...], said: str) -> None:
    """A run that prunes nothing in the chain has a dense control alone."""
    row = {"criterion": "sgd", "members": 2, "gradient_evaluations": 5700}
    metrics = {"dense": row, "control": [row, *({**row, "target": target} for target in targets)]}
    assert said in control_lines(metrics)[0]


def test_a_run_without_forks_has_a_dense_control(tmp_path: Path) -> None:
    """The lengths of forks, which the preset leaves alone and which do not fit its one step an epoch, are not asked."""
    job = Run(PRESETS["regression"](), tmp_path)
    assert DenseThenGradual(job, 0, "sgd").num_steps == job.schedule(None).num_steps


def test_every_row_has_a_control_of_as_many_gradient_evaluations(finished: Path) -> None:
    """What chains and networks count is what the records hold: minibatches of 50, 57 dense steps, 30 a target."""
    metrics = read(finished)
    dense, half, most = metrics["control"]
    assert dense["gradient_evaluations"] == metrics["dense"]["gradient_evaluations"] == 2 * 57 * 50
    ours = {row["target"]: row["gradient_evaluations"] for row in metrics["pruned"] if row["when"] == "in_chain"}
    assert ours == {row["target"]: row["gradient_evaluations"] for row in (half, most)}
    assert ours == {0.5: 2 * 87 * 50, 0.8: 2 * 117 * 50}
    post_hoc = {row["gradient_evaluations"] for row in metrics["pruned"] if row["when"] == "post_hoc"}
    assert post_hoc == {metrics["dense"]["gradient_evaluations"]}


def test_the_control_is_pruned_to_the_targets_and_learns(finished: Path) -> None:
    dense, *pruned = read(finished)["control"]
    assert [row["sparsity"] for row in (dense, *pruned)] == pytest.approx([0, 0.5, 0.8], abs=2e-4)
    assert all(row["accuracy"] > 0.6 and row["members"] == 2 for row in (dense, *pruned))


def test_examples_passed_are_those_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every minibatch that a step of a chain or of a network fetched (what diagnostics look at is no training)."""
    fetched: Counter[str] = Counter()
    batch, who = MinibatchStream.batch, ["nobody"]

    def counted(stream: MinibatchStream, *arguments: Any) -> Any:
        found = batch(stream, *arguments)
        fetched[who[-1]] += len(found[1])
        return found

    def told(step: Any, name: str) -> Any:
        def taken(one: Any) -> Any:
            who.append(name)
            ended = step(one)
            who.pop()
            return ended

        return taken

    monkeypatch.setattr(MinibatchStream, "batch", counted)
    monkeypatch.setattr(DenseThenGradual, "advance", told(DenseThenGradual.advance, "control"))
    monkeypatch.setattr(Chain, "advance", told(Chain.advance, "chains"))
    metrics = run(controlled(), tmp_path / "out", progress=False)
    assert fetched["control"] == fetched["chains"] == metrics["control"][-1]["gradient_evaluations"]


def test_table_and_page_show_the_control(finished: Path) -> None:
    table, shown = metrics_table(read(finished)), page(RunData.open(finished), [])
    assert sum(line.startswith("sgd ") for line in table.splitlines()) == 3
    assert "Gradient evaluations, dense: 5,700, and 5,700 of the chains" in table
    assert "control: sgd in 2 networks" in shown
    assert shown.count(">sgd<") == 3
    picture = quality_against_sparsity(RunData.open(finished))
    assert "Dotted: the networks of the control" in picture.caption
    figure = picture.figure
    assert figure is not None
    dotted = [drawn for drawn in figure.axes[1].lines if drawn.get_marker() == "P"]
    (pruned,) = (drawn.get_ydata() for drawn in dotted)
    assert list(pruned) == [row["accuracy"] for row in read(finished)["control"][1:]]
    assert "sgd, trained instead" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_interrupted_control_goes_on_to_the_bit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = new_run(controlled(), tmp_path / "out")
    advance = DenseThenGradual.advance

    def interrupted(network: DenseThenGradual) -> bool:
        if network.step == 70:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(network)

    with monkeypatch.context() as patch:
        patch.setattr(DenseThenGradual, "advance", interrupted)
        with pytest.raises(Interrupted):
            resume(out, progress=False)
    assert not (out / "metrics.json").exists()
    assert (out / "control" / "checkpoints" / "chain0.safetensors").exists()
    resume(out, progress=False)
    assert_same_run(finished, out)


def test_a_run_that_prunes_nothing_has_a_dense_control_alone(tmp_path: Path) -> None:
    config = controlled(**{"prune.in_chain": (), "chains": 1, "control": "adamw", "execution": "processes"})
    metrics = run(config, tmp_path / "out", progress=False)
    assert [(row["criterion"], row["decision"]) for row in metrics["control"]] == [("adamw", "none")]


def test_a_control_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match=r"control is 'adam'; choose one of sgd, adamw, or your own"):
        controlled(control="adam")


def test_torchrun_has_no_control() -> None:
    with pytest.raises(ValueError, match=r"control is 'sgd', which one process trains, and torchrun started 2; leave"):
        _check_processes(controlled(), Ranks(rank=0, size=2))
