"""The desk's budget of the experiments after papers: one factor, bfloat16 where it is fast, bad input in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import small

from experiments.ke_fan import cifar100, imagenet
from experiments.ke_fan.cifar10 import EXPERIMENT
from experiments.literature import Experiment, at_the_desk, dense_epochs, main, precision
from experiments.sun_deng import deng_resnet20, sun_resnet
from experiments.wenzel_izmailov import cold_posterior, resnet20_frn
from experiments.zhang import csgmcmc_resnet18
from sgmcmc_prune import models
from sgmcmc_prune.machine import bfloat16
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.unread import unread_settings

OTHERS = (cifar100, imagenet, deng_resnet20, sun_resnet, cold_posterior, resnet20_frn, csgmcmc_resnet18)
EXPERIMENTS = (EXPERIMENT, *(module.EXPERIMENT for module in OTHERS))
SCRIPT = str(Path(__file__).parent / "nowhere.py")
NONE, SOME = "flags\t\t: fpu avx2 avx512f\n", "flags\t\t: fpu avx512f avx512_bf16\n"


def test_one_factor_for_every_length_and_nothing_else() -> None:
    paper, desk = (EXPERIMENT.config("em T=1e-5", budget) for budget in ("paper", "desk"))
    factor = 24 / dense_epochs(paper)
    assert dense_epochs(desk) == pytest.approx(24)
    for part, name in (("schedule", "burn_in"), ("schedule", "relax"), ("prune", "explore"), ("prune", "sample")):
        lengths = [getattr(getattr(config, part), name) for config in (paper, desk)]
        assert lengths[1] == pytest.approx(factor * lengths[0])
    p = desk.prune
    assert len(p.targets) * (p.explore + p.sample) == pytest.approx(12, rel=0.02)  # half as many again in the chain
    assert (desk.data, desk.model, desk.prior, desk.sampler) == (paper.data, paper.model, paper.prior, paper.sampler)
    assert (desk.chains, desk.execution, desk.data.validation) == (2, "processes", 0)


def test_choices_are_made_on_images_that_are_held_out() -> None:
    assert EXPERIMENT.config("em T=1e-5", "desk", evaluate="validation").data.validation == 5000


def test_a_dense_ensemble_at_the_desk_has_thirty_members_at_most() -> None:
    long = at_the_desk(small(**{"schedule.cycles": 1, "schedule.draws": 900}), 24)
    assert at_the_desk(small(**{"schedule.cycles": 27, "schedule.draws": 1}), 24).schedule.draws == 1
    assert long.schedule.draws == 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "epochs is 0; a dense chain at the desk needs more than 0"),
        (["--epochs", "3", "--budget", "paper"], "epochs are the desk's; with --budget paper leave them out"),
        (["--precision", "bfloat16"], "precision is 'bfloat16', but this processor has neither avx512_bf16 nor AMX"),
        (["--device", "cuda:99"], "device is 'cuda:99' but PyTorch sees"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bfloat16, "_cpuinfo", lambda: NONE)
    common = ["--seeds", "0", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "table")]
    with pytest.raises(SystemExit) as stopped:
        main(EXPERIMENT, SCRIPT, "A title.", [*common, *options])
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out) == (2, "")
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_processor_can_do() -> None:
    assert bfloat16.why_slow_processor(SOME) == bfloat16.why_slow_processor("Features : fp bf16\n") == ""
    assert "neither avx512_bf16 nor AMX" in bfloat16.why_slow_processor(NONE)
    assert bfloat16.why_slow_processor("") != ""


def test_the_desk_takes_bfloat16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bfloat16, "_cpuinfo", lambda: SOME)
    assert precision("auto", "desk", "cpu") == precision("bfloat16", "paper", "cpu") == "bfloat16"
    assert precision("auto", "paper", "cpu") == precision("float32", "desk", "cpu") == "float32"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bfloat16, "_cpuinfo", lambda: NONE)
    assert precision("auto", "desk", "cpu") == "float32"
    assert capsys.readouterr().err.startswith("float32: this processor has neither")


def test_a_run_in_bfloat16_is_refused_where_it_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_cpuinfo", lambda: NONE)
    with pytest.raises(ValueError, match=r"this processor has neither .* use --precision float32"):
        run(small(precision="bfloat16"), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("normalisation", "precision", "last"),
    [("batch", "bfloat16", True), ("batch", "float32", True), ("group", "float32", True), ("group", "bfloat16", False)],
)
def test_channels_last_in_bfloat16_only_with_batch_normalisation(
    normalisation: str, precision: str, last: bool
) -> None:
    model = models.build("resnet20", (3, 32, 32), 10, seed=0, normalisation=normalisation)
    weights = [p for p in models.in_fast_layout("resnet20", model, precision).parameters() if p.shape[2:] == (3, 3)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) == last for w in weights)


def test_too_few_images_for_the_spike_say_how_many_would_do() -> None:
    """A preset's largest step of 0.1 and spike of 1e-4 take 527 images."""
    config = small(**{"sampler.lr": 0.1, "sampler.preconditioner": "identity", "prior.spike_variance": 1e-4})
    job = Run(config)
    model = job.model(0)
    with pytest.raises(ValueError, match=r"500 training examples: .* train on 527 examples or more, or lower lr"):
        job.sampler(model, job.prior(model, 0), 0)


def test_the_preset_of_imagenet_has_the_papers_length() -> None:
    config = PRESETS["imagenet"]()
    p = config.prune
    assert (dense_epochs(config), len(p.targets) * (p.explore + p.sample)) == (90, 36)
    assert (config.chains, len(p.in_chain)) == (1, 1)


def test_a_script_of_few_pictures_ends_in_one_line(tmp_path: Path) -> None:
    """`ke_fan.imagenet` on nine pictures: the cell's reason is the last line, without a traceback."""
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "val"):
        for number in range(9):
            folder = tmp_path / "pictures" / split / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            image.new("RGB", (32, 32), (20 * number, 0, 0)).save(folder / f"{number}.png")
    options = ["--budget", "desk", "--data-dir", str(tmp_path / "pictures"), "--variants", "marginal T=1"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.ke_fan.imagenet", *options, "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "9" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_no_variant_gives_what_is_not_read(experiment: Experiment) -> None:
    for variant in experiment.variants:
        assert unread_settings(Run(experiment.config(variant, "desk"))) == []
