"""The examples whose outputs a run keeps: the same for every seed, validation split and number of them."""

from pathlib import Path

import pytest
import torch
from small_run import small

from sgmcmc_prune.diagnostics.inference_data import summary
from sgmcmc_prune.report import write_report
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.run.run import Run


def test_probes_depend_on_the_data_set_alone() -> None:
    found = []
    for changes in ({"seed": 0}, {"seed": 1}, {"data.validation": 0}, {"data.validation": 6999}, {"probes": 5}):
        config = small(**changes)
        found.append(Run(config).probes)
    for other in found[1:]:
        count = len(other.labels)
        assert torch.equal(other.labels, found[0].labels[:count])
        assert torch.equal(other.inputs, found[0].inputs[:count])
        assert torch.equal(other.index, found[0].index[:count])
    images = Run(small()).data.dataset.train.subset(found[0].index)
    assert torch.equal(images.labels, found[0].labels)
    assert len(found[0].labels) == 8
    assert not found[2].held_out.any()


def test_probes_held_out_are_those_of_the_validation_split() -> None:
    config = small(probes=64)
    run = Run(config)
    data, probes = run.data, run.probes
    validation = {image.numpy().tobytes() for image in data.validation[0]}
    assert [image.numpy().tobytes() in validation for image in probes.inputs] == probes.held_out.tolist()
    assert 0 < probes.held_out.sum() < 64


def test_more_probes_than_images_are_refused() -> None:
    config = small(probes=7001)
    with pytest.raises(ValueError, match="probes is 7001; choose 1 to 7000"):
        _ = Run(config).probes


def test_a_summary_names_classes_whatever_they_are_called(tmp_path: Path) -> None:
    run(small(**{"prune.in_chain": (), "prune.post_hoc": ()}), tmp_path / "run", progress=False)
    probe = int(Run(small()).probes.index[0])
    assert f"logits[{probe}, T-shirt/top]" in summary(tmp_path / "run").index


def test_a_run_without_labels_of_classes_and_probes_still_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As stored before there were any."""
    monkeypatch.setattr(Run, "probe_coords", {})
    run(small(**{"prune.in_chain": (), "prune.post_hoc": ()}), tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert "logits[1, 9]" in summary(tmp_path / "run").index
    assert write_report(tmp_path / "run").is_file()
    resume(tmp_path / "run", progress=False)
